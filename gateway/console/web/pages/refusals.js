/** Calls, connections and requests of guests that were refused. */

import {first} from "../core/first.js";
import {html, nothing} from "../core/html.js";
import {ago, counted} from "../core/format.js";
import {empty} from "../parts/badge.js";
import "../parts/table.js";

const MOST = 500;
/** Milliseconds between two looks: the log says nothing about them. */
const PACE = 3000;

/** @typedef {RefusalView & {id: string}} Row */
/** @typedef {{refusals: Row[], more: boolean}} Refusals */

/** @type {import("../parts/table.js").Column<Row>[]} */
const COLUMNS = [
  {name: "code", title: "Refused", card: true, by: row => row.code, view: row => `${row.status} ${row.code}`},
  {name: "at", title: "When", card: true, by: row => row.at, view: row => html`<span title=${row.at}>${ago(row.at)}</span>`},
  {name: "count", title: "Times", align: "end", by: row => row.count, view: row => row.count},
  {name: "actor", title: "Whom", card: true, by: row => row.actor, view: row => row.actor ?? "unknown"},
  {name: "credential", title: "Credential", by: row => row.credential, view: row => row.credential ?? "none"},
  {name: "address", title: "Address", by: row => row.address, view: row => html`<code>${row.address}</code>`},
  {name: "path", title: "What", by: row => row.path, view: row => html`<code>${row.method} ${row.path}</code>`},
  {name: "request", title: "Request", view: row => html`<code>${row.request}</code>`},
];

/** @type {Page<Refusals>} */
export const page = {
  reads: true,

  async load(context) {
    setTimeout(() => context.signal.aborted || context.refresh(), PACE);
    const {address, credential} = context.query;
    const found = await first(context, "/v1/refusals", {address, credential}, MOST);
    const refusals = /** @type {RefusalView[]} */ (found.items).map((each, at) => ({...each, id: `${each.at} ${at}`}));
    return {refusals, more: found.more};
  },

  view(context, {refusals, more}) {
    const {query, ask} = context;
    const text = (/** @type {string} */ name, /** @type {string} */ label) => html`
      <label><span class="unseen">${label}</span><input type="text" name=${name} placeholder=${label} autocomplete="off" spellcheck="false" .value=${query[name] ?? ""}
        @change=${(/** @type {Event} */ event) => ask({[name]: /** @type {HTMLInputElement} */ (event.target).value.trim() || null})}></label>
    `;
    return html`
      <header class="page-head">
        <h1>Refusals</h1>
        <span class="count" role="status">${counted(refusals.length, "record")}${more ? ", and more" : ""}</span>
      </header>
      <div class="filters" role="search">${text("address", "Address")} ${text("credential", "Credential")}</div>
      <nb-table .model=${{
        label: "Refusals",
        columns: COLUMNS,
        rows: refusals,
        id: (/** @type {Row} */ row) => row.id,
        name: (/** @type {Row} */ row) => `${row.code} ${row.path}`,
        empty: empty("No refusals", "Nothing was refused that fits."),
      }}></nb-table>
      ${more ? html`<p class="small">Only the first ${MOST} are shown.</p>` : nothing}
    `;
  },
};
