/** The list of all accounts of one sort: users, or service accounts. */

import {html, nothing} from "../core/html.js";
import {ago, counted, words} from "../core/format.js";
import {linkTo} from "../core/links.js";
import {Rows} from "../core/rows.js";
import {ask} from "../parts/ask.js";
import {badge, empty} from "../parts/badge.js";
import {quoted} from "../parts/command.js";
import {filters, matches} from "../parts/filters.js";
import {body} from "../parts/form.js";
import "../parts/table.js";

/**
 * @typedef {object} Sort
 * @property {string} kind as in the log
 * @property {string} path of the list in the API
 * @property {string} page of one
 * @property {string} title
 * @property {string} one
 * @property {string} cli the command of `nebula`
 * @property {string} principal the beginning of its principal's name
 */

/** @type {Sort} */
export const USERS = {kind: "user", path: "/v1/users", page: "/users/:user", title: "Users", one: "user", cli: "user", principal: "user:"};
/** @type {Sort} */
export const SERVICES = {kind: "service_account", path: "/v1/service-accounts", page: "/service-accounts/:service_account", title: "Service accounts", one: "service account", cli: "service-account", principal: "service:"};

/** @typedef {{rows: Rows<AccountView, AccountView>}} Accounts */

/**
 * @param {Sort} sort
 * @returns {Page<Accounts>}
 */
export const accounts = sort => ({
  async load({api, changed, signal}, before) {
    if (before && before.rows.signal === signal) {
      await before.rows.load();
      return before;
    }
    const rows = new Rows({api, path: sort.path, keep: (/** @type {AccountView} */ item) => item, changed, signal});
    await rows.load();
    return {rows};
  },

  live({kind, id}, _context, {rows}) {
    if (kind === sort.kind) rows.note(id);
  },

  view(context, {rows}) {
    const {at, me, query, go} = context;
    const shown = rows.list.filter(row => matches([row.id, row.name, ...row.roles].join(" "), query["q"]));
    const button = at === null && me.may("user.manage") ? html`<button class="primary" @click=${() => void create(context, sort)}>Create ${sort.one}</button>` : nothing;
    return html`
      <header class="page-head">
        <h1>${sort.title}</h1>
        <span class="count" role="status">${counted(rows.list.length, sort.one)}${rows.complete ? "" : ", reading…"}</span>
        <span class="grow"></span>
        ${button}
      </header>
      ${filters(context, "Search name, id, role…", [])}
      <nb-table .model=${{
        label: sort.title,
        columns: columns(sort),
        rows: shown,
        id: (/** @type {AccountView} */ row) => row.id,
        name: (/** @type {AccountView} */ row) => row.name,
        onopen: (/** @type {AccountView} */ row) => go(sort.page, {[sort.kind]: row.id}),
        empty: rows.list.length === 0 ? empty(`No ${sort.one}`, "Each one that is made here can get roles and tokens.", button) : empty("None of them matches", "Change the search."),
      }}></nb-table>
    `;
  },
});

/** @param {Sort} sort @returns {import("../parts/table.js").Column<AccountView>[]} */
const columns = sort => [
  {name: "name", title: "Name", card: true, by: row => row.name, view: row => linkTo(sort.kind, null, row.id, row.name)},
  {name: "id", title: "Principal", card: true, by: row => row.id, view: row => html`<code>${sort.principal}${row.id}</code>`},
  {name: "state", title: "State", card: true, by: row => String(row.disabled), view: row => badge(row.disabled ? "disabled" : "active")},
  {name: "roles", title: "Roles in the cloud", by: row => row.roles.join(), view: row => row.roles.map(words).join(", ")},
  {name: "created", title: "Created", by: row => row.created_at, view: row => html`<span title=${row.created_at}>${ago(row.created_at)}</span>`},
];

/** @param {Context} context @param {Sort} sort */
async function create(context, sort) {
  /** @type {{resource: AccountView} | undefined} */
  const made = await ask(context, {
    title: `Create a ${sort.one}`,
    button: "Create",
    fields: () => [
      {name: "name", label: "Name", required: true},
      {name: "id", label: "Id", help: "It never changes. Without it, it follows from the name."},
    ],
    call: form => {
      const [name, id] = [form.text("name").trim(), form.text("id").trim()];
      return {method: "POST", path: sort.path, body: body({name, id}), cli: `nebula ${sort.cli} create ${quoted(name || "NAME")}${id ? ` --id ${quoted(id)}` : ""}`};
    },
  });
  if (made) context.go(sort.page, {[sort.kind]: made.resource.id});
}
