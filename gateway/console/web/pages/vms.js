/** The virtual machines of a project: search, filters, selection, and what can be done with many at the same time. */

import {html, nothing} from "../core/html.js";
import {ago, counted, gib, mib} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {Rows} from "../core/rows.js";
import {badge, empty} from "../parts/badge.js";
import {filters, matches, values} from "../parts/filters.js";
import "../parts/table.js";
import {create} from "./vm-create.js";
import {bulk} from "./vm-bulk.js";

/**
 * What the table keeps of a VM.
 * @typedef {object} Row
 * @property {string} id
 * @property {string} name
 * @property {string} phase
 * @property {boolean} ready
 * @property {string | null} pending
 * @property {string | null} node
 * @property {string} address
 * @property {string} image
 * @property {number} vcpus
 * @property {number} memory
 * @property {number} disk
 * @property {string} created
 * @property {string} text all that is searched in
 */

/** @param {VmView} vm @returns {Row | null} */
const keep = vm =>
  vm.phase === "deleted"
    ? null
    : {
        id: vm.id,
        name: vm.name,
        phase: vm.phase,
        ready: vm.ready,
        pending: vm.pending?.verb ?? null,
        node: vm.node,
        address: vm.addresses[0] ?? "",
        image: vm.image,
        vcpus: vm.vcpus,
        memory: vm.memory_mib,
        disk: vm.disk_gib,
        created: vm.created_at,
        text: [vm.name, vm.id, vm.phase, vm.node, vm.image, vm.description, ...vm.addresses, ...vm.tags, ...Object.entries(vm.labels).map(([key, value]) => `${key}=${value}`)].join(" "),
      };

const ORDER = ["running", "paused", "suspended", "stopped", "requested", "scheduled", "unschedulable", "failed", "lost"];

/** @type {import("../parts/table.js").Column<Row>[]} */
const COLUMNS = [
  {name: "name", title: "Name", card: true, by: row => row.name, view: row => row.name},
  {
    name: "phase",
    title: "State",
    card: true,
    by: row => ORDER.indexOf(row.phase),
    view: row => html`${badge(row.phase)}${row.pending ? html` <span class="small">${row.pending}…</span>` : row.phase === "running" && !row.ready ? html` <span class="small">not ready</span>` : nothing}`,
  },
  {name: "address", title: "Address", card: true, by: row => row.address, view: row => (row.address ? html`<code>${row.address}</code>` : "–")},
  {name: "node", title: "Node", by: row => row.node, view: row => (row.node ? linkTo("node", null, row.node) : "–")},
  {name: "image", title: "Image", by: row => row.image, view: row => linkTo("image", null, row.image)},
  {name: "vcpus", title: "CPUs", align: "end", by: row => row.vcpus, view: row => row.vcpus},
  {name: "memory", title: "Memory", align: "end", by: row => row.memory, view: row => mib(row.memory)},
  {name: "disk", title: "Disk", align: "end", by: row => row.disk, view: row => gib(row.disk)},
  {name: "created", title: "Created", by: row => row.created, view: row => html`<span title=${row.created}>${ago(row.created)}</span>`},
];

/** @typedef {{rows: Rows<VmView, Row>, selected: Set<string>}} Vms */

/** @type {Page<Vms>} */
export const page = {
  title: ({params}) => `Virtual machines of ${params["project"]}`,

  async load({api, params, changed, signal}, before) {
    const project = /** @type {string} */ (params["project"]);
    if (before && before.rows.signal === signal) {
      await before.rows.load();
      return before;
    }
    const rows = new Rows({api, path: `/v1/projects/${encodeURIComponent(project)}/vms`, keep, changed, signal});
    await rows.load();
    return {rows, selected: new Set()};
  },

  live({kind, project, id}, {params}, {rows}) {
    if (kind === "vm" && project === params["project"]) rows.note(id);
  },

  view(context, data) {
    const {at, params, query, me} = context;
    const project = /** @type {string} */ (params["project"]);
    const {rows} = data;
    const shown = rows.list.filter(
      row => matches(row.text, query["q"]) && (!query["phase"] || row.phase === query["phase"]) && (!query["node"] || row.node === query["node"]),
    );
    const ids = new Set(shown.map(({id}) => id));
    const selected = new Set([...data.selected].filter(id => ids.has(id)));
    const mayCreate = at === null && me.may("vm.create", project);
    const filtered = shown.length !== rows.list.length;
    return html`
      <header class="page-head">
        <h1>Virtual machines</h1>
        <span class="count" role="status">${filtered ? `${shown.length} of ` : ""}${counted(rows.list.length, "VM")}${rows.complete ? "" : ", reading…"}</span>
        <span class="grow"></span>
        ${mayCreate ? html`<button class="primary" @click=${() => create(context, project)}>Create VM</button>` : nothing}
      </header>
      ${filters(context, "Search name, address, label…", [
        {name: "phase", label: "State", options: values(rows.list, ({phase}) => phase)},
        {name: "node", label: "Node", options: values(rows.list, ({node}) => node)},
      ])}
      ${selected.size > 0 && at === null
        ? bulk(context, project, shown.filter(({id}) => selected.has(id)), () => {
            data.selected = new Set();
            context.changed();
          })
        : nothing}
      <nb-table .model=${{
        label: `Virtual machines of ${project}`,
        columns: linked(project),
        rows: shown,
        id: (/** @type {Row} */ row) => row.id,
        name: (/** @type {Row} */ row) => row.name,
        onopen: (/** @type {Row} */ row) => context.go("/projects/:project/vms/:vm", {project, vm: row.id}),
        ...(at === null ? {selected, onselect: (/** @type {Set<string>} */ chosen) => {
          data.selected = chosen;
          context.changed();
        }} : {}),
        empty: rows.list.length === 0
          ? empty("No virtual machines", at === null ? "This project has none yet." : "This project had none at that moment.", mayCreate ? html`<button class="primary" @click=${() => create(context, project)}>Create VM</button>` : nothing)
          : empty("None of them matches", html`Change the search or the filters. ${link("/projects/:project/vms", {project}, "Show all")}`),
      }}></nb-table>
    `;
  },
};

/** @param {string} project */
function linked(project) {
  const [first, ...others] = COLUMNS;
  return [{...first, view: (/** @type {Row} */ row) => linkTo("vm", project, row.id, row.name)}, ...others];
}
