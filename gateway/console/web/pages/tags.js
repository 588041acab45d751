/** The tags that VMs and projects can have. */

import {html, nothing} from "../core/html.js";
import {ago, counted} from "../core/format.js";
import {link} from "../core/links.js";
import {Rows} from "../core/rows.js";
import {ask} from "../parts/ask.js";
import {empty} from "../parts/badge.js";
import {command, quoted} from "../parts/command.js";
import {confirm} from "../parts/confirm.js";
import {filters, matches} from "../parts/filters.js";
import {body} from "../parts/form.js";
import "../parts/table.js";

/** @typedef {{rows: Rows<NamedView, NamedView>}} Tags */

/** @type {Page<Tags>} */
export const page = {
  async load({api, changed, signal}, before) {
    if (before && before.rows.signal === signal) {
      await before.rows.load();
      return before;
    }
    const rows = new Rows({api, path: "/v1/tags", keep: (/** @type {NamedView} */ item) => item, changed, signal});
    await rows.load();
    return {rows};
  },

  live({kind, id}, _context, {rows}) {
    if (kind === "tag") rows.note(id);
  },

  view(context, {rows}) {
    const {at, me, query} = context;
    const may = at === null && me.may("tag.manage");
    const shown = rows.list.filter(row => matches(`${row.id} ${row.name}`, query["q"]));
    const button = may ? html`<button class="primary" @click=${() => void create(context)}>Create tag</button>` : nothing;
    return html`
      <header class="page-head">
        <h1>Tags</h1>
        <span class="count" role="status">${counted(rows.list.length, "tag")}${rows.complete ? "" : ", reading…"}</span>
        <span class="grow"></span>
        ${button}
      </header>
      ${filters(context, "Search name or id…", [])}
      <nb-table .model=${{
        label: "Tags",
        columns: columns(context, may),
        rows: shown,
        id: (/** @type {NamedView} */ row) => row.id,
        name: (/** @type {NamedView} */ row) => row.name,
        empty: rows.list.length === 0 ? empty("No tags", "Tags group VMs and projects.", button) : empty("None of them matches", "Change the search."),
      }}></nb-table>
    `;
  },
};

/**
 * @param {Context} context
 * @param {boolean} may
 * @returns {import("../parts/table.js").Column<NamedView>[]}
 */
const columns = (context, may) => [
  {name: "name", title: "Name", card: true, by: row => row.name, view: row => row.name},
  {name: "id", title: "Id", card: true, by: row => row.id, view: row => html`<code>${row.id}</code>`},
  {name: "created", title: "Created", by: row => row.created_at, view: row => html`<span title=${row.created_at}>${ago(row.created_at)}</span>`},
  {name: "log", title: "Log", view: row => link("/log", {}, "its events", {kind: "tag", id: row.id})},
  ...(may
    ? [
        {
          name: "actions",
          title: "Actions",
          card: true,
          view: (/** @type {NamedView} */ row) => html`
            <button aria-label="Rename ${row.name}" @click=${() => void rename(context, row)}>Rename</button>
            <button class="danger-text" aria-label="Delete ${row.name}" @click=${() => void remove(context, row)}>Delete</button>
          `,
        },
      ]
    : []),
];

/** @param {Context} context */
const create = context =>
  ask(context, {
    title: "Create a tag",
    button: "Create",
    fields: () => [
      {name: "name", label: "Name", required: true},
      {name: "id", label: "Id", help: "It never changes. Without it, it follows from the name."},
    ],
    call: form => {
      const [name, id] = [form.text("name").trim(), form.text("id").trim()];
      return {method: "POST", path: "/v1/tags", body: body({name, id}), cli: `nebula tag create ${quoted(name || "NAME")}${id ? ` --id ${quoted(id)}` : ""}`};
    },
  });

/** @param {Context} context @param {NamedView} tag */
const rename = (context, {id, name}) =>
  ask(context, {
    title: `Rename ${name}`,
    button: "Rename",
    values: {name},
    fields: () => [{name: "name", label: "Name", required: true}],
    call: form => ({method: "PATCH", path: `/v1/tags/${encodeURIComponent(id)}`, body: {name: form.text("name").trim()}, cli: `nebula tag rename ${quoted(id)} ${quoted(form.text("name").trim() || "NAME")}`}),
  });

/** @param {Context} context @param {NamedView} tag */
const remove = ({api, refresh}, {id, name}) =>
  confirm({
    title: `Delete: ${name}`,
    words: "No VM and no project may have it.",
    button: "Delete",
    danger: true,
    name: id,
    more: command({method: "DELETE", path: `/v1/tags/${encodeURIComponent(id)}`, cli: `nebula tag delete ${quoted(id)}`}),
    act: async () => {
      await api.send("DELETE", `/v1/tags/${encodeURIComponent(id)}`, null, {wait: 10});
      refresh();
    },
  });
