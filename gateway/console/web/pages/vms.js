/** The virtual machines of a project, or of all projects: search, filters, selection, and what can be done with many at the same time. */

import {html, nothing, ref} from "../core/html.js";
import {counted} from "../core/format.js";
import {link} from "../core/links.js";
import {Rows} from "../core/rows.js";
import {empty} from "../parts/badge.js";
import {filters} from "../parts/filters.js";
import {sheet} from "../parts/sheet.js";
import "../parts/table.js";
import {create} from "./vm-create.js";
import {actions, bulk} from "./vms/bulk.js";
import {choose, columns, hidden} from "./vms/columns.js";
import {keysOf} from "./vms/keys.js";
import {choices, found, keep, orderOf, remembered} from "./vms/model.js";

/** @typedef {import("./vms/model.js").Row} Row */
/** @typedef {import("../parts/table.js").Table<Row>} VmTable */

const VM = "/projects/:project/vms/:vm";

/** What the page keeps while it is shown. */
class Vms {
  /** @type {Set<string>} */ selected = new Set();
  /** @type {import("./vms/outcomes.js").Outcomes | null} */ outcomes = null;
  /** @type {VmTable | null} */ table = null;
  found = remembered(found);
  choices = remembered(choices);
  columns = remembered((/** @type {boolean} */ everywhere, /** @type {string} */ without) => columns(everywhere, without.split(" ")));

  /**
   * @param {Rows<VmView, Row>} rows
   * @param {Context} context
   */
  constructor(rows, context) {
    this.rows = rows;
    this.context = context;
  }

  hold = (/** @type {Element | undefined} */ element) => {
    this.table = /** @type {VmTable | null} */ (element ?? null);
  };

  /** The rows that match the filters. */
  get shown() {
    return this.found(this.rows.list, this.context.query);
  }

  /** Those of them that are selected. */
  get chosen() {
    return this.selected.size === 0 ? [] : this.shown.filter(({id}) => this.selected.has(id));
  }

  select = (/** @type {Set<string>} */ ids) => {
    this.selected = ids;
    this.context.changed();
  };

  began = (/** @type {import("./vms/outcomes.js").Outcomes} */ outcomes) => {
    this.outcomes?.close();
    this.outcomes = outcomes;
    this.select(new Set());
    void outcomes.run();
  };

  /** The dialogue of a new VM; null if the caller may create none here. */
  get create() {
    const {at, me, params} = this.context;
    const project = params["project"] ?? null;
    const may = at === null && (project === null ? me.mayAnywhere("vm.create") && !me.readOnly : me.may("vm.create", project));
    return may ? () => void create(this.context, project, this.began) : null;
  }
}

/** @type {Page<Vms>} */
export const page = {
  title: ({params}) => (params["project"] === undefined ? "Virtual machines of all projects" : `Virtual machines of ${params["project"]}`),

  async load(context, before) {
    const {api, params, changed, signal} = context;
    if (before && before.rows.signal === signal) {
      await before.rows.load();
      return before;
    }
    const {project} = params;
    const path = project === undefined ? "/v1/vms" : `/v1/projects/${encodeURIComponent(project)}/vms`;
    const rows = new Rows({api, path, keep, changed, signal});
    await rows.load();
    return new Vms(rows, context);
  },

  live({kind, project, id}, {params}, {rows}) {
    if (kind !== "vm" || (params["project"] !== undefined && project !== params["project"])) return;
    rows.note(id, `/v1/projects/${encodeURIComponent(project)}/vms/${encodeURIComponent(id)}`);
  },

  keys: (context, data) => keysOf(context, {table: data.table, shown: data.shown, selected: data.chosen, select: data.select, began: data.began, create: data.create}),

  view(context, data) {
    const {at, params, query} = context;
    const project = params["project"] ?? null;
    const {rows, shown, chosen} = data;
    const add = data.create === null ? nothing : html`<button class="primary" @click=${data.create}>Create VM</button>`;
    return html`
      <header class="page-head">
        <h1>Virtual machines</h1>
        <span class="count" role="status">${shown.length === rows.list.length ? "" : `${shown.length.toLocaleString("en")} of `}${counted(rows.list.length, "VM")}${rows.complete ? "" : ", reading…"}</span>
        ${project === null ? html`<span class="count">in all projects</span>` : html`<span>${link("/vms", {}, "Those of all projects")}</span>`}
        <span class="grow"></span>
        <button class="no-phone-table" @click=${() => void choose(context.changed)}>Columns</button>
        ${add}
      </header>
      ${filters(context, "Search name, address, label…", data.choices(rows.list, project === null))}
      ${data.outcomes?.view(() => {
        data.outcomes?.close();
        data.outcomes = null;
        context.changed();
      }) ?? nothing}
      ${chosen.length > 0 && at === null ? bulk(context, chosen, data.began, () => data.select(new Set())) : nothing}
      <nb-table ${ref(data.hold)} .model=${{
        label: project === null ? "Virtual machines of all projects" : `Virtual machines of ${project}`,
        columns: [...data.columns(project === null, hidden().join(" ")), more(context, data)],
        rows: shown,
        id: (/** @type {Row} */ row) => row.id,
        name: (/** @type {Row} */ row) => row.name,
        onopen: (/** @type {Row} */ row) => context.go(VM, {project: row.project, vm: row.id}),
        sort: orderOf(query["sort"]),
        onsort: (/** @type {import("../parts/table.js").Sort} */ {name, descending}) => context.ask({sort: name === null ? null : `${descending ? "-" : ""}${name}`}),
        ondrawn: (/** @type {string[]} */ ids) => {
          rows.seen = new Set(ids);
        },
        ...(at === null ? {selected: data.selected, onselect: data.select} : {}),
        empty: rows.list.length === 0
          ? empty("No virtual machines", `${project === null ? "There" : "This project"} ${none(project === null, at !== null)}`, add)
          : empty("None of them matches", html`Change the search or the filters. ${project === null ? link("/vms", {}, "Show all") : link("/projects/:project/vms", {project}, "Show all")}`),
      }}></nb-table>
    `;
  },
};

/**
 * @param {boolean} everywhere
 * @param {boolean} past
 */
const none = (everywhere, past) => (everywhere ? (past ? "were none at that moment." : "are none yet.") : past ? "had none at that moment." : "has none yet.");

/**
 * The actions of one VM, on a phone.
 * @param {Context} context
 * @param {Vms} data
 * @returns {import("../parts/table.js").Column<Row>}
 */
const more = (context, data) => ({
  name: "more",
  title: "Actions",
  card: true,
  only: "phone",
  view: row => html`<button type="button" aria-label="Actions of ${row.name}" @click=${() => void sheet(row.name, [
    {text: "Open", act: () => context.go(VM, {project: row.project, vm: row.id})},
    ...(context.at === null && context.me.may("vm.console", row.project)
      ? [{text: "Console", act: () => context.go(VM, {project: row.project, vm: row.id}, {tab: "console"})}]
      : []),
    ...(context.at === null ? actions(context, [row], data.began) : []),
  ])}>⋯</button>`,
});
