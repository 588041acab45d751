/** The projects that one has a role in. */

import {html, nothing} from "../core/html.js";
import {ago, counted} from "../core/format.js";
import {linkTo} from "../core/links.js";
import {Rows} from "../core/rows.js";
import {ask} from "../parts/ask.js";
import {empty} from "../parts/badge.js";
import {quoted} from "../parts/command.js";
import {filters, matches} from "../parts/filters.js";
import {body} from "../parts/form.js";
import "../parts/table.js";

/** @typedef {{rows: Rows<ProjectView, ProjectView>}} Projects */

/** @type {import("../parts/table.js").Column<ProjectView>[]} */
const COLUMNS = [
  {name: "name", title: "Name", card: true, by: row => row.name, view: row => linkTo("project", null, row.id, row.name)},
  {name: "id", title: "Id", card: true, by: row => row.id, view: row => html`<code>${row.id}</code>`},
  {name: "members", title: "Members", align: "end", by: row => row.members.length, view: row => row.members.length},
  {name: "tags", title: "Tags", view: row => row.tags.join(", ")},
  {name: "description", title: "Description", view: row => row.description ?? ""},
  {name: "created", title: "Created", by: row => row.created_at, view: row => html`<span title=${row.created_at}>${ago(row.created_at)}</span>`},
];

/** @type {Page<Projects>} */
export const page = {
  async load({api, changed, signal}, before) {
    if (before && before.rows.signal === signal) {
      await before.rows.load();
      return before;
    }
    const rows = new Rows({api, path: "/v1/projects", keep: (/** @type {ProjectView} */ item) => item, changed, signal});
    await rows.load();
    return {rows};
  },

  live({kind, id}, _context, {rows}) {
    if (kind === "project") rows.note(id);
  },

  view(context, {rows}) {
    const {at, me, query, go} = context;
    const shown = rows.list.filter(row => matches([row.id, row.name, row.description, ...row.tags].join(" "), query["q"]));
    const button = at === null && me.may("project.manage") ? html`<button class="primary" @click=${() => void create(context)}>Create project</button>` : nothing;
    return html`
      <header class="page-head">
        <h1>Projects</h1>
        <span class="count" role="status">${counted(rows.list.length, "project")}${rows.complete ? "" : ", reading…"}</span>
        <span class="grow"></span>
        ${button}
      </header>
      ${filters(context, "Search name, id, tag…", [])}
      <nb-table .model=${{
        label: "Projects",
        columns: COLUMNS,
        rows: shown,
        id: (/** @type {ProjectView} */ row) => row.id,
        name: (/** @type {ProjectView} */ row) => row.name,
        onopen: (/** @type {ProjectView} */ row) => go("/projects/:project", {project: row.id}),
        empty: rows.list.length === 0 ? empty("No projects", "VMs are in projects.", button) : empty("None of them matches", "Change the search."),
      }}></nb-table>
    `;
  },
};

/** @param {Context} context */
async function create(context) {
  /** @type {{resource: ProjectView} | undefined} */
  const made = await ask(context, {
    title: "Create a project",
    button: "Create",
    fields: () => [
      {name: "name", label: "Name", required: true},
      {name: "id", label: "Id", help: "It never changes. Without it, it follows from the name."},
      {name: "description", label: "Description"},
    ],
    call: form => {
      const [name, id, description] = [form.text("name").trim(), form.text("id").trim(), form.text("description").trim()];
      const more = `${id ? ` --id ${quoted(id)}` : ""}${description ? ` --description ${quoted(description)}` : ""}`;
      return {method: "POST", path: "/v1/projects", body: body({name, id, description}), cli: `nebula project create ${quoted(name || "NAME")}${more}`};
    },
  });
  if (made) context.go("/projects/:project", {project: made.resource.id});
}
