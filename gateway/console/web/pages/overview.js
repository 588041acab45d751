/** The whole platform at a look: hosts and their fill, VMs by phase, what is under way, what needs somebody, the log. */

import {html, nothing} from "../core/html.js";
import {ago, words} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {newest} from "../core/newest.js";
import {unless} from "../core/problem.js";
import {Rows} from "../core/rows.js";
import {badge, operationBadge} from "../parts/badge.js";
import {itemOf} from "../parts/timeline.js";
import {begin} from "./overview-begin.js";
import {hosts} from "./overview-hosts.js";
import {Flow} from "./overview-log.js";
import {needs} from "./overview-needs.js";
import {Now} from "./overview-now.js";

/** How many projects are counted, and how many VMs of each; more are only said to be there. */
const MOST_PROJECTS = 20;
const MOST_VMS = 500;
/** How many events and operations are shown. */
const SHOWN = 20;
/** The phases that need somebody. */
const WRONG = ["failed", "lost", "unschedulable"];
/** What somebody gets who may not see a list. @type {ListOf<any>} */
const NONE = {items: [], next_page_token: null, position: 0};
const PHASES = ["running", "paused", "suspended", "stopped", "requested", "scheduled", ...WRONG];

/** @typedef {{id: string, name: string, project: string, phase: string, why: string | null, pending: VmView["pending"]}} Vm */
/**
 * @typedef {object} Overview
 * @property {NodeView[] | null} nodes null: the caller may not see them
 * @property {ProjectView[]} projects
 * @property {Rows<VmView, Vm>[]} vms of each project, as far as they are counted
 * @property {Vm[]} others VMs that need somebody, of projects that are not counted to the end
 * @property {() => Vm[]} wrong the VMs that need somebody
 * @property {Operation[]} operations under way
 * @property {boolean} more whether there are more of them
 * @property {Flow} flow
 * @property {Now | null} now null: another moment is shown
 */

/** @type {Page<Overview>} */
export const page = {
  async load(context, before) {
    const {api, signal, me, at} = context;
    const fresh = before?.now?.context.signal === signal || before?.vms[0]?.signal === signal ? before : undefined;
    /** @type {<T>(permission: string, path: string, query: QueryValues) => Promise<ListOf<T>>} */
    const read = async (permission, path, query) => (me.mayAnywhere(permission) ? await unless(api.get(path, query, {signal}), [403]) : null) ?? NONE;
    const list = async () => (await /** @type {typeof read<ProjectView>} */ (read)("project.read", "/v1/projects", {limit: 500})).items;
    // The frame has read them already; if it has none, they may be missing because it could not.
    const listed = fresh || at !== null ? list() : context.projects().then(known => (known.length > 0 ? known : list()));
    const [nodes, projects, running, accepted, events] = await Promise.all([
      me.mayAnywhere("node.read") ? unless(/** @type {Promise<ListOf<NodeView>>} */ (api.get("/v1/nodes", {limit: 500}, {signal})), [403]) : null,
      listed,
      /** @type {typeof read<Operation>} */ (read)("operation.read", "/v1/operations", {status: "running", limit: SHOWN}),
      /** @type {typeof read<Operation>} */ (read)("operation.read", "/v1/operations", {status: "accepted", limit: SHOWN}),
      me.mayAnywhere("event.read") ? newest(context, {}, SHOWN) : [],
    ]);
    const flow = fresh?.flow ?? new Flow(SHOWN);
    flow.take(events.map(itemOf));
    const vms = counts(context, projects.slice(0, MOST_PROJECTS), fresh?.vms ?? []);
    const data = {
      ...{projects, vms, flow},
      nodes: nodes?.items ?? null,
      others: fresh?.others ?? [],
      wrong: () => wrong(data),
      operations: [...running.items, ...accepted.items],
      more: running.next_page_token !== null || accepted.next_page_token !== null,
      now: fresh?.now ?? (at === null ? new Now(context) : null),
    };
    data.now?.show(data.nodes ?? []);
    void others(context, data);
    return data;
  },

  live(event, context, data) {
    const {position, time, type, actor, kind, id, project, operation} = event;
    data.flow.add({position, time, type, actor, kind, id, project, operation});
    context.changed();
    if (kind === "vm") data.vms.find(rows => rows.path === pathOf(project))?.note(id);
    if (kind === "node" || kind === "project" || operation !== null) context.refresh();
  },

  view(context, data) {
    const {now, nodes, projects, operations, flow} = data;
    const vms = data.vms.flatMap(rows => rows.list);
    const counted = data.vms.every(rows => rows.complete);
    if (counted && vms.length === 0) void now?.askImages();
    const lines = needs(data);
    return html`
      <header class="page-head"><h1>Overview</h1></header>
      <div class="cards">
        ${counted ? begin(context, {nodes, projects, images: now?.images ?? null, vms: vms.length}) : nothing}
        <section class="card ${lines.length === 0 ? "" : "card-bad"}" aria-labelledby="needs">
          <h2 id="needs">Needs somebody</h2>
          ${lines.length === 0 ? html`<p>Nothing: all is well.</p>` : html`<ul class="plain-list">${lines}</ul>`}
        </section>
        <section class="card" aria-labelledby="phases">
          <h2 id="phases">Virtual machines</h2>
          ${phases(vms, data.vms.some(rows => rows.more))}
          ${counted ? nothing : html`<p class="small" aria-busy="true">Counting…</p>`}
          ${data.vms.some(rows => rows.more) ? html`<p class="small">Of each project, the first ${MOST_VMS} are counted.</p>` : nothing}
          ${projects.length > MOST_PROJECTS ? html`<p class="small">Of the first ${MOST_PROJECTS} of ${projects.length === 500 ? "500+" : projects.length} projects.</p>` : nothing}
        </section>
        ${nodes === null || nodes.length === 0 ? nothing : hosts(nodes, now?.used ?? null)}
        <section class="card" aria-labelledby="operations">
          <h2 id="operations">Under way</h2>
          ${operations.length === 0
            ? html`<p class="small">No operation is under way.</p>`
            : html`<ul class="plain-list">
                ${operations.map(
                  operation => html`
                    <li>${operationBadge(operation.status)} ${words(operation.verb)} ${linkTo(operation.kind, operation.project, operation.resource, nameOf(data, operation.project, operation.resource))}
                      <span class="small">${operation.actor}, ${ago(operation.accepted_at)}</span></li>
                  `,
                )}
              </ul>`}
          <p class="small">${link("/operations", {}, data.more ? "There are more: all operations" : "All operations")}</p>
        </section>
        ${flow.view({changed: context.changed, past: context.at !== null, subject: item => about(data, item), go: at => context.travel(String(at))})}
      </div>
    `;
  },
};

/**
 * @param {Vm[]} vms
 * @param {boolean} more whether some are not counted
 */
function phases(vms, more) {
  const numbers = PHASES.map(phase => ({phase, count: vms.filter(vm => vm.phase === phase).length})).filter(({count}) => count > 0);
  if (numbers.length === 0) return html`<p class="small">There are none.</p>`;
  const text = (/** @type {number} */ count) => `${count.toLocaleString("en")}${more ? "+" : ""}`;
  return html`
    <p class="big">${text(vms.length)}</p>
    <ul class="phases">${numbers.map(({phase, count}) => html`<li>${badge(phase)} <strong>${text(count)}</strong></li>`)}</ul>
  `;
}

/** @param {string} project */
const pathOf = project => `/v1/projects/${encodeURIComponent(project)}/vms`;

/** @param {VmView} vm @returns {Vm | null} */
const keep = ({id, name, project, phase, failure, pending}) => (phase === "deleted" ? null : {id, name, project, phase, why: failure?.detail ?? null, pending});

/**
 * The VMs of some projects, counted in the background; those of `known` go on.
 * @param {Context} context
 * @param {ProjectView[]} projects
 * @param {Rows<VmView, Vm>[]} known
 */
const counts = ({api, changed, signal}, projects, known) =>
  projects.map(({id}) => {
    const path = pathOf(id);
    const before = known.find(rows => rows.path === path);
    if (before !== undefined) return before;
    const rows = new Rows({api, path, keep, changed, signal, most: MOST_VMS});
    // A project that cannot be read now is counted when its next event comes.
    rows.load().catch(() => {
      rows.complete = true;
      changed();
    });
    return rows;
  });

/**
 * Find the VMs that need somebody in the projects that are not counted to the end.
 * @param {Context} context
 * @param {Overview} data
 */
async function others({api, signal, changed}, data) {
  await Promise.all(data.vms.map(rows => rows.loaded));
  const large = data.vms.filter(rows => rows.more);
  if (large.length === 0 || signal.aborted) return;
  const asked = large.flatMap(({path}) => WRONG.map(phase => unless(/** @type {Promise<ListOf<VmView>>} */ (api.get(path, {phase, limit: SHOWN}, {signal})), [0, 403, 404, 410, 503])));
  try {
    const found = await Promise.all(asked);
    data.others = found.flatMap(list => list?.items ?? []).flatMap(vm => keep(vm) ?? []);
    changed();
  } catch {
    // the page was left
  }
}

/** @param {Overview} data */
function wrong({vms, others: found}) {
  const known = vms.flatMap(rows => rows.list);
  const seen = new Set(known.map(({id}) => id));
  return [...known, ...found.filter(({id}) => !seen.has(id))].filter(({phase}) => WRONG.includes(phase));
}

/**
 * What an event is about, by its name where that is known.
 * @param {Overview} data
 * @param {import("../parts/timeline.js").Item} item
 */
function about(data, {kind, project, id}) {
  const where = project === "system" ? nothing : html` in ${project}`;
  return html`${kind === "vm" ? "VM" : words(kind).toLowerCase()} ${linkTo(kind, project, id, kind === "vm" ? nameOf(data, project, id) : id)}${kind === "project" ? nothing : where}`;
}

/**
 * The name of a VM, where it is known; else its id.
 * @param {Overview} data
 * @param {string} project
 * @param {string} id
 */
const nameOf = ({vms}, project, id) => vms.find(rows => rows.path === pathOf(project))?.get(id)?.name ?? id;
