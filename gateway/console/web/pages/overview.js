/** The whole platform at a look: hosts and their fill, VMs by phase, what is under way, what needs somebody, the log. */

import {html, nothing} from "../core/html.js";
import {ago, counted, gib, mib, words} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {newest} from "../core/newest.js";
import {Problem} from "../core/problem.js";
import {Rows} from "../core/rows.js";
import {badge, empty, meter, operationBadge} from "../parts/badge.js";
import {itemOf, timeline} from "../parts/timeline.js";

/** How many projects are counted; more are only named. */
const MOST_PROJECTS = 20;
/** How many events and operations are shown. */
const SHOWN = 20;
/** The phases that need somebody. */
const WRONG = ["failed", "lost", "unschedulable"];
const PHASES = ["running", "paused", "suspended", "stopped", "requested", "scheduled", ...WRONG];

/** @typedef {{id: string, name: string, project: string, phase: string, why: string | null}} Vm */
/**
 * @typedef {object} Overview
 * @property {NodeView[] | null} nodes null: the caller may not see them
 * @property {Rows<VmView, Vm>[]} vms of each project
 * @property {number} projects
 * @property {Operation[]} operations under way
 * @property {import("../parts/timeline.js").Item[]} events the newest first
 * @property {HealthView | null} health
 */

/** @type {Page<Overview>} */
export const page = {
  async load(context, before) {
    const {api, signal, me} = context;
    const [nodes, projects, running, accepted, events, health] = await Promise.all([
      me.mayAnywhere("node.read") ? allowed(api.get("/v1/nodes", {limit: 500}, {signal})) : null,
      api.get("/v1/projects", {limit: 500}, {signal}),
      api.get("/v1/operations", {status: "running", limit: SHOWN}, {signal}),
      api.get("/v1/operations", {status: "accepted", limit: SHOWN}, {signal}),
      newest(context, {}, SHOWN),
      context.at === null ? unhealthy(api.get("/healthz", {}, {signal})) : null,
    ]);
    const known = /** @type {ListOf<ProjectView>} */ (projects).items;
    const vms = before?.vms[0]?.signal === signal ? before.vms : await counts(context, known.slice(0, MOST_PROJECTS));
    return {
      nodes: /** @type {ListOf<NodeView> | null} */ (nodes)?.items ?? null,
      vms,
      projects: known.length,
      operations: [.../** @type {ListOf<Operation>} */ (running).items, .../** @type {ListOf<Operation>} */ (accepted).items],
      events: events.map(itemOf),
      health,
    };
  },

  live(event, context, data) {
    const {position, time, type, actor, kind, id, project, operation} = event;
    if (position > (data.events[0]?.position ?? 0)) {
      data.events = [{position, time, type, actor, kind, id, project, operation}, ...data.events].slice(0, SHOWN);
      context.changed();
    }
    if (kind === "vm") data.vms.find(rows => rows.path.includes(`/${project}/`))?.note(id);
    if (kind === "node" || kind === "project" || operation !== null) context.refresh();
  },

  view(context, data) {
    const vms = data.vms.flatMap(rows => rows.list);
    const wrong = vms.filter(({phase}) => WRONG.includes(phase));
    return html`
      <header class="page-head"><h1>Overview</h1></header>
      <div class="cards">
        ${needs(data, wrong)}
        <section class="card" aria-labelledby="phases">
          <h2 id="phases">Virtual machines</h2>
          ${phases(vms)}
          ${data.vms.every(rows => rows.complete) ? nothing : html`<p class="small" aria-busy="true">Counting…</p>`}
          ${data.projects > MOST_PROJECTS ? html`<p class="small">Of the first ${MOST_PROJECTS} of ${data.projects} projects.</p>` : nothing}
        </section>
        ${data.nodes === null ? nothing : hosts(data.nodes)}
        <section class="card" aria-labelledby="operations">
          <h2 id="operations">Under way</h2>
          ${data.operations.length === 0
            ? html`<p class="small">No operation is under way.</p>`
            : html`<ul class="plain-list">
                ${data.operations.map(
                  operation => html`
                    <li>${operationBadge(operation.status)} ${words(operation.verb)} ${linkTo(operation.kind, operation.project, operation.resource, nameOf(vms, operation))}
                      <span class="small">${operation.actor}, ${ago(operation.accepted_at)}</span></li>
                  `,
                )}
              </ul>`}
          <p class="small">${link("/operations", {}, "All operations")}</p>
        </section>
        <section class="card wide" aria-labelledby="log">
          <h2 id="log">The log${context.at === null ? ", as it grows" : ", up to this moment"}</h2>
          ${data.events.length === 0 ? html`<p class="small">Nothing has happened yet.</p>` : timeline(data.events, {subject: item => about(data, item), go: at => context.travel(String(at))})}
          <p class="small">${link("/log", {}, "Search the log")}</p>
        </section>
      </div>
    `;
  },
};

/**
 * What needs somebody.
 * @param {Overview} data
 * @param {Vm[]} wrong
 */
function needs({nodes, health}, wrong) {
  const lost = (nodes ?? []).filter(({lost: gone, clock_warning: clock}) => gone || clock);
  const unhealthy = health !== null && health.status !== "ok";
  const nothingWrong = wrong.length === 0 && lost.length === 0 && !unhealthy;
  return html`
    <section class="card ${nothingWrong ? "" : "card-bad"}" aria-labelledby="needs">
      <h2 id="needs">Needs somebody</h2>
      ${nothingWrong ? html`<p>Nothing: all is well.</p>` : nothing}
      <ul class="plain-list">
        ${unhealthy ? html`<li>${badge(health?.status ?? "")} The platform says that it is ${health?.status}${health?.parked ? html`; ${link("/parked", {}, `${counted(health.parked, "message")} parked`)}` : nothing}</li>` : nothing}
        ${lost.map(node => html`<li>${badge(node.status)} Node ${linkTo("node", null, node.id)} ${node.clock_warning ?? `last seen ${ago(node.last_seen)}`}</li>`)}
        ${wrong.slice(0, 8).map(vm => html`<li>${badge(vm.phase)} ${linkTo("vm", vm.project, vm.id, vm.name)} <span class="small">${vm.why ?? ""}</span></li>`)}
        ${wrong.length > 8 ? html`<li class="small">and ${counted(wrong.length - 8, "more VM")}</li>` : nothing}
      </ul>
    </section>
  `;
}

/** @param {Vm[]} vms */
function phases(vms) {
  const numbers = PHASES.map(phase => ({phase, count: vms.filter(vm => vm.phase === phase).length})).filter(({count}) => count > 0);
  if (numbers.length === 0) return html`<p class="small">There are none.</p>`;
  return html`
    <p class="big">${vms.length.toLocaleString("en")}</p>
    <ul class="phases">${numbers.map(({phase, count}) => html`<li>${badge(phase)} <strong>${count.toLocaleString("en")}</strong></li>`)}</ul>
  `;
}

/** @param {NodeView[]} nodes */
function hosts(nodes) {
  if (nodes.length === 0) return html`<section class="card">${empty("No nodes", html`<code>nebula node token</code> lets a host join.`)}</section>`;
  return html`
    <section class="card wide" aria-labelledby="nodes">
      <h2 id="nodes">${counted(nodes.length, "node")}</h2>
      <div class="hosts">
        ${nodes.slice(0, 24).map(
          node => html`
            <article class="host">
              <h3>${linkTo("node", null, node.id)} ${badge(node.status)}</h3>
              <p class="small">${counted(node.vms, "VM")}, ${node.virt_type}</p>
              ${meter("CPU", node.reserved.vcpus, node.capacity.vcpus, `${node.reserved.vcpus} of ${node.capacity.vcpus}`)}
              ${meter("Memory", node.reserved.memory_mib, node.capacity.memory_mib, `${mib(node.reserved.memory_mib)} of ${mib(node.capacity.memory_mib)}`)}
              ${meter("Disk", node.reserved.disk_gib, node.capacity.disk_gib, `${gib(node.reserved.disk_gib)} of ${gib(node.capacity.disk_gib)}`)}
            </article>
          `,
        )}
      </div>
      ${nodes.length > 24 ? html`<p class="small">and ${nodes.length - 24} more</p>` : nothing}
    </section>
  `;
}

/**
 * What an event is about, by its name where that is known.
 * @param {Overview} data
 * @param {import("../parts/timeline.js").Item} item
 */
function about({vms}, {kind, project, id}) {
  const name = kind === "vm" ? vms.find(rows => rows.get(id))?.get(id)?.name : undefined;
  const where = project === "system" ? nothing : html` in ${project}`;
  return html`${kind === "vm" ? "VM" : words(kind).toLowerCase()} ${linkTo(kind, project, id, name ?? id)}${kind === "project" ? nothing : where}`;
}

/**
 * @param {Vm[]} vms
 * @param {Operation} operation
 */
const nameOf = (vms, operation) => vms.find(({id}) => id === operation.resource)?.name ?? operation.resource;

/**
 * The VMs of some projects, counted in the background.
 * @param {Context} context
 * @param {ProjectView[]} projects
 */
async function counts({api, changed, signal}, projects) {
  const all = projects.map(
    ({id}) =>
      new Rows({
        api,
        path: `/v1/projects/${encodeURIComponent(id)}/vms`,
        keep: (/** @type {VmView} */ vm) =>
          vm.phase === "deleted" ? null : {id: vm.id, name: vm.name, project: vm.project, phase: vm.phase, why: vm.failure?.detail ?? null},
        changed,
        signal,
      }),
  );
  await Promise.all(all.map(rows => rows.load()));
  return all;
}

/**
 * An answer; null if the caller may not have it.
 * @template T
 * @param {Promise<T>} answer
 */
async function allowed(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof Problem && error.status === 403) return null;
    throw error;
  }
}

/**
 * The health of the platform, also if it is not well: that answer is 503.
 * @param {Promise<HealthView>} answer
 * @returns {Promise<HealthView>}
 */
async function unhealthy(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof Problem && error.status === 503) return {status: "unavailable"};
    throw error;
  }
}
