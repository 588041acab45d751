/** The flavors: sizes that have a name. */

import {html, nothing} from "../core/html.js";
import {counted, gib, mib} from "../core/format.js";
import {linkTo} from "../core/links.js";
import {Rows} from "../core/rows.js";
import {ask} from "../parts/ask.js";
import {badge, empty} from "../parts/badge.js";
import {quoted} from "../parts/command.js";
import {filters, matches} from "../parts/filters.js";
import {body, labels} from "../parts/form.js";
import "../parts/table.js";

/** @typedef {{rows: Rows<FlavorView, FlavorView>}} Flavors */

/** @type {import("../parts/table.js").Column<FlavorView>[]} */
const COLUMNS = [
  {name: "name", title: "Name", card: true, by: row => row.name, view: row => linkTo("flavor", null, row.id, row.name)},
  {name: "state", title: "State", card: true, by: row => String(row.deprecated), view: row => badge(row.deprecated ? "deprecated" : "available")},
  {name: "vcpus", title: "CPUs", card: true, align: "end", by: row => row.vcpus, view: row => row.vcpus},
  {name: "memory", title: "Memory", align: "end", by: row => row.memory_mib, view: row => mib(row.memory_mib)},
  {name: "disk", title: "Disk", align: "end", by: row => row.disk_gib, view: row => gib(row.disk_gib)},
  {name: "project", title: "For", by: row => row.project, view: row => (row.project ? linkTo("project", null, row.project) : "all projects")},
  {name: "description", title: "Description", view: row => row.description ?? ""},
];

/** @type {Page<Flavors>} */
export const page = {
  async load({api, changed, signal}, before) {
    if (before && before.rows.signal === signal) {
      await before.rows.load();
      return before;
    }
    const rows = new Rows({api, path: "/v1/flavors", keep: (/** @type {FlavorView} */ item) => item, changed, signal});
    await rows.load();
    return {rows};
  },

  live({kind, id}, _context, {rows}) {
    if (kind === "flavor") rows.note(id);
  },

  view(context, {rows}) {
    const {at, me, query, go} = context;
    const shown = rows.list.filter(row => matches([row.id, row.name, row.project, row.description].join(" "), query["q"]));
    const button = at === null && me.mayAnywhere("flavor.manage") ? html`<button class="primary" @click=${() => void create(context)}>Create flavor</button>` : nothing;
    return html`
      <header class="page-head">
        <h1>Flavors</h1>
        <span class="count" role="status">${counted(rows.list.length, "flavor")}${rows.complete ? "" : ", reading…"}</span>
        <span class="grow"></span>
        ${button}
      </header>
      ${filters(context, "Search name, project…", [])}
      <nb-table .model=${{
        label: "Flavors",
        columns: COLUMNS,
        rows: shown,
        id: (/** @type {FlavorView} */ row) => row.id,
        name: (/** @type {FlavorView} */ row) => row.name,
        onopen: (/** @type {FlavorView} */ row) => go("/flavors/:flavor", {flavor: row.id}),
        empty: rows.list.length === 0 ? empty("No flavors", "Without them, each VM says its own numbers.", button) : empty("None of them matches", "Change the search."),
      }}></nb-table>
    `;
  },
};

/** @param {Context} context */
function create(context) {
  const everywhere = context.me.may("flavor.manage");
  return ask(context, {
    title: "Create a flavor",
    button: "Create",
    values: {vcpus: "1", memory_mib: "1024", disk_gib: "10"},
    words: html`<p>A size never changes; a flavor that should not be used any more is deprecated.</p>`,
    fields: form => [
      {name: "name", label: "Name", required: true},
      {name: "id", label: "Id", help: "It never changes. Without it, it follows from the name."},
      {name: "vcpus", label: "CPUs", type: "number", min: 1, required: true},
      {name: "memory_mib", label: "Memory in MiB", type: "number", min: 1, required: true},
      {name: "disk_gib", label: "Disk in GiB", type: "number", min: 1, required: true},
      {name: "project", label: "Project", required: !everywhere, help: everywhere ? "Only its VMs may use it; without it, all may." : "The project of which you are an admin."},
      {name: "labels", label: "Labels", type: "area", rows: 2, placeholder: "team=blue", ...(labels(form.text("labels")) === null ? {hint: "lines of key=value"} : {})},
      {name: "description", label: "Description"},
    ],
    call: form => {
      const [name, id, project, description] = ["name", "id", "project", "description"].map(each => form.text(each).trim());
      const [vcpus, memory, disk] = ["vcpus", "memory_mib", "disk_gib"].map(each => form.number(each));
      const found = labels(form.text("labels"));
      const more = `${id ? ` --id ${quoted(id)}` : ""}${project ? ` --private --project ${quoted(project)}` : ""}${description ? ` --description ${quoted(description)}` : ""}`;
      return {
        method: "POST",
        path: "/v1/flavors",
        body: body({name, id, vcpus, memory_mib: memory, disk_gib: disk, project, description, labels: found && Object.keys(found).length > 0 ? found : null}),
        cli: `nebula flavor create ${quoted(name || "NAME")} --vcpus ${vcpus} --memory ${memory} --disk ${disk}${more}`,
      };
    },
  });
}
