/** Messages that the platform could not process, and set aside for somebody to look at. */

import {first} from "../core/first.js";
import {html, nothing} from "../core/html.js";
import {ago, bytes, counted} from "../core/format.js";
import {link} from "../core/links.js";
import {badge, empty} from "../parts/badge.js";
import "../parts/table.js";

const MOST = 500;
/** Milliseconds between two looks: the log says nothing about them. */
const PACE = 3000;
const STATES = ["open", "dropped", "retried"];
/** The key of the record that counts what was not kept. */
const MORE = "more";

/** @typedef {{records: ParkedSummary[], more: boolean}} Parked */

/** @type {import("../parts/table.js").Column<ParkedSummary>[]} */
const COLUMNS = [
  {
    name: "key",
    title: "Message",
    card: true,
    by: row => `${row.source} ${row.key}`,
    view: row => (row.key === MORE ? `${counted(row.count, "more message")}, only counted` : link("/parked/:source/:key", {source: row.source, key: row.key}, `${row.source} ${row.key}`)),
  },
  {name: "status", title: "State", card: true, by: row => row.status, view: row => badge(row.status, row.status === "open" ? "warn" : "still")},
  {name: "subject", title: "Subject", by: row => row.subject, view: row => html`<code>${row.subject}</code>`},
  {name: "error", title: "What is wrong", card: true, by: row => row.error, view: row => row.error},
  {name: "size", title: "Size", align: "end", by: row => row.size, view: row => bytes(row.size)},
  {name: "time", title: "Since", by: row => row.time, view: row => html`<span title=${row.time}>${ago(row.time)}</span>`},
];

/** @type {Page<Parked>} */
export const page = {
  reads: true,

  async load(context) {
    setTimeout(() => context.signal.aborted || context.refresh(), PACE);
    const {status, source} = context.query;
    const found = await first(context, "/v1/parked", {status, source}, MOST);
    return {records: /** @type {ParkedSummary[]} */ (found.items), more: found.more};
  },

  view(context, {records, more}) {
    const {query, ask, go} = context;
    return html`
      <header class="page-head">
        <h1>Parked messages</h1>
        <span class="count" role="status">${counted(records.length, "record")}${more ? ", and more" : ""}</span>
      </header>
      <div class="filters">
        <label><span class="unseen">State</span>
          <select @change=${(/** @type {Event} */ event) => ask({status: /** @type {HTMLSelectElement} */ (event.target).value})}>
            ${STATES.map(state => html`<option value=${state} ?selected=${(query["status"] ?? "open") === state}>${state}</option>`)}
          </select></label>
      </div>
      <nb-table .model=${{
        label: "Parked messages",
        columns: COLUMNS,
        rows: records,
        id: (/** @type {ParkedSummary} */ row) => `${row.source} ${row.key}`,
        name: (/** @type {ParkedSummary} */ row) => `${row.source} ${row.key}`,
        onopen: (/** @type {ParkedSummary} */ row) => row.key !== MORE && go("/parked/:source/:key", {source: row.source, key: row.key}),
        empty: empty("No messages", "Everything could be processed."),
      }}></nb-table>
      ${more ? html`<p class="small">Only the first ${MOST} are shown.</p>` : nothing}
    `;
  },
};
