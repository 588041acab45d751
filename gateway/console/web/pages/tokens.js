/** Tokens: one's own, and those of all for who may see them. */

import {html, nothing} from "../core/html.js";
import {ago, counted} from "../core/format.js";
import {whose} from "../core/links.js";
import {Rows} from "../core/rows.js";
import {badge, empty} from "../parts/badge.js";
import {filters, matches, values} from "../parts/filters.js";
import "../parts/table.js";
import {issue, limits, revoke} from "./token-actions.js";

/** Milliseconds before its end from which a token is worth a warning. */
const SOON = 7 * 24 * 60 * 60 * 1000;

/** @typedef {{rows: Rows<TokenView, TokenView>}} Tokens */

/** @type {Page<Tokens>} */
export const page = {
  async load({api, changed, signal}, before) {
    if (before && before.rows.signal === signal) {
      await before.rows.load();
      return before;
    }
    const rows = new Rows({api, path: "/v1/tokens", keep: (/** @type {TokenView} */ item) => item, changed, signal});
    await rows.load();
    return {rows};
  },

  live({kind, id}, _context, {rows}) {
    if (kind === "token") rows.note(id);
  },

  view(context, {rows}) {
    const {at, me, query} = context;
    const shown = rows.list.filter(row => matches([row.name, row.id, row.principal, row.project, row.role].join(" "), query["q"]) && (!query["principal"] || row.principal === query["principal"]));
    const button = at === null && me.may("self.edit") ? html`<button class="primary" @click=${() => void issue(context, "")}>Issue a token</button>` : nothing;
    return html`
      <header class="page-head">
        <h1>Tokens</h1>
        <span class="count" role="status">${counted(rows.list.length, "token")}${rows.complete ? "" : ", reading…"}</span>
        <span class="grow"></span>
        ${button}
      </header>
      ${filters(context, "Search name, principal, role…", [{name: "principal", label: "Of", options: values(rows.list, ({principal}) => principal)}])}
      <nb-table .model=${{
        label: "Tokens",
        columns: columns(context),
        rows: shown,
        id: (/** @type {TokenView} */ row) => row.id,
        name: (/** @type {TokenView} */ row) => row.name,
        empty: rows.list.length === 0 ? empty("No tokens", "A token lets a program or the command line act for somebody.", button) : empty("None of them matches", "Change the search or the filters."),
      }}></nb-table>
    `;
  },
};

/** @param {Context} context @returns {import("../parts/table.js").Column<TokenView>[]} */
const columns = context => [
  {name: "name", title: "Name", card: true, by: row => row.name, view: row => row.name},
  {name: "principal", title: "Of", card: true, by: row => row.principal, view: row => whose(row.principal)},
  {
    name: "expires",
    title: "Expires",
    card: true,
    by: row => row.expires_at,
    view: row => html`<span title=${row.expires_at}>${ago(row.expires_at)}</span> ${Date.parse(row.expires_at) - Date.now() < SOON ? badge(Date.parse(row.expires_at) < Date.now() ? "expired" : "soon", "warn") : nothing}`,
  },
  {name: "used", title: "Last used", by: row => row.last_used_at, view: row => (row.last_used_at ? html`<span title=${row.last_used_at}>${ago(row.last_used_at)}</span>` : "never")},
  {name: "limits", title: "Allows", view: row => limits(row)},
  {name: "by", title: "Issued by", by: row => row.created_by, view: row => row.created_by ?? "–"},
  {
    name: "actions",
    title: "Actions",
    view: row => (context.at === null && (context.me.may("token.manage") || (row.principal === context.me.principal && context.me.may("self.edit"))) ? html`<button class="danger-text" aria-label="Revoke ${row.name}" @click=${() => void revoke(context, row)}>Revoke</button>` : nothing),
  },
];
