/** One virtual machine: its state, what can be done with it, its operation under way, and all that has happened to it. */

import {html, nothing, repeat} from "../core/html.js";
import {ago, gib, mib, moment, words} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {newest} from "../core/newest.js";
import {Problem} from "../core/problem.js";
import {badge, facts, refusal} from "../parts/badge.js";
import "../parts/menu.js";
import "../parts/progress.js";
import {itemOf, timeline} from "../parts/timeline.js";
import {sayRefused} from "../parts/toast.js";
import {ACTIONS, run} from "./vm-actions.js";
import {change, resize} from "./vm-forms.js";
import {tabs} from "./vm-tabs.js";

/** How many events are shown at first, and more with each click. */
const EVENTS = 50;
/** The verbs that have a button; the others are in the menu. */
const BUTTONS = ["start", "stop", "restart", "resume"];

/** The verbs that have a dialogue of their own. @type {Record<string, (context: Context, vm: VmView) => Promise<Operation | undefined>>} */
const FORMS = {change, resize};

/**
 * @typedef {object} One
 * @property {VmView} vm
 * @property {VerbView[] | null} verbs null: the gateway does not say
 * @property {import("../parts/timeline.js").Item[]} events
 * @property {number} most how many events are shown
 * @property {string | null} operation the one to watch: under way, or just sent from here
 */

/** @type {Page<One>} */
export const page = {
  title: ({params}, data) => data?.vm.name ?? params["vm"] ?? "Virtual machine",

  async load(context, before) {
    const {api, params, signal, at} = context;
    const path = pathOf(params);
    const most = before?.most ?? EVENTS;
    const query = {project: params["project"], vm: params["vm"]};
    const [vm, events] = await Promise.all([
      /** @type {Promise<VmView>} */ (api.get(path, {}, {signal})),
      newest(context, query, most),
    ]);
    const verbs = at === null && vm.phase !== "deleted" ? await verbsOf(context, path) : null;
    return {vm, verbs, events: events.map(itemOf), most, operation: vm.pending?.operation ?? (before?.vm.id === vm.id ? before.operation : null)};
  },

  live({kind, id, project}, context, {vm}) {
    if (kind === "vm" && id === vm.id && project === vm.project) context.refresh();
  },

  view(context, data) {
    const {vm, operation} = data;
    const {api, live, at} = context;
    return html`
      <nav class="crumbs" aria-label="Path">${link("/projects/:project/vms", {project: vm.project}, "Virtual machines")}</nav>
      <header class="page-head">
        <h1>${vm.name}</h1>
        ${badge(vm.phase)} ${vm.phase === "running" ? html`<span class="small">${vm.ready ? "ready" : "its guest is not ready yet"}</span>` : nothing}
        <span class="grow"></span>
        ${at === null ? actions(context, data) : html`<span class="small">Actions are for the present: press <kbd>n</kbd>.</span>`}
      </header>
      ${vm.failure ? refusal(new Problem(0, vm.failure.code, vm.failure.detail), html`<p class="small">${moment(vm.failure.at)}</p>`) : nothing}
      ${vm.warnings.map(({detail}) => html`<p class="field-hint">${detail}</p>`)}
      ${operation && at === null ? html`<div class="card"><nb-progress .model=${{id: operation, api, live, plain: true, ended: () => context.refresh()}}></nb-progress></div>` : nothing}
      ${tabs(context, vm, pathOf(context.params), () => overview(context, data))}
    `;
  },
};

/**
 * @param {Context} context
 * @param {One} data
 */
function overview(context, data) {
  const {vm, events, most} = data;
  return html`
    <div class="cards">
      <section class="card" aria-labelledby="what"><h2 id="what">What it is</h2>${about(vm)}</section>
      <section class="card" aria-labelledby="where"><h2 id="where">Where it is</h2>${place(vm)}</section>
      <section class="card wide" aria-labelledby="happened">
        <h2 id="happened">What happened</h2>
        ${timeline(events, {go: position => context.travel(String(position))})}
        ${events.length >= most
          ? html`<button @click=${() => {
              data.most += EVENTS * 2;
              context.refresh();
            }}>Show earlier events</button>`
          : nothing}
      </section>
    </div>
  `;
}

/** @param {Record<string, string>} params */
const pathOf = params => `/v1/projects/${encodeURIComponent(params["project"] ?? "")}/vms/${encodeURIComponent(params["vm"] ?? "")}`;

/**
 * The verbs that the caller may use, as the platform judges them now.
 * @param {Context} context
 * @param {string} path
 * @returns {Promise<VerbView[] | null>}
 */
async function verbsOf({api, signal}, path) {
  try {
    /** @type {{items: VerbView[]}} */
    const {items} = await api.get(`${path}/verbs`, {}, {signal});
    return items;
  } catch (error) {
    if (error instanceof Problem && (error.status === 404 || error.status === 410 || error.status === 503)) return null;
    throw error;
  }
}

/**
 * @param {Context} context
 * @param {One} data
 */
function actions(context, data) {
  const {vm, verbs} = data;
  if (vm.phase === "deleted") return nothing;
  const act = async (/** @type {import("./vm-actions.js").VmAction} */ action) => {
    try {
      const operation = await (FORMS[action.verb] ?? run)(context, vm, action);
      if (operation) data.operation = operation.id;
      context.refresh();
    } catch (error) {
      sayRefused(error);
    }
  };
  const offered = ACTIONS.flatMap(action => {
    const judged = verbs?.find(({verb}) => verb === action.verb);
    if (verbs !== null && judged === undefined) return []; // the role does not have it
    const possible = judged ? judged.accepted || judged.forced?.accepted === true : action.phases.includes(vm.phase);
    return [{action, refused: possible ? null : (judged?.why ?? `not while it is ${vm.phase}`)}];
  });
  const buttons = offered.filter(({action, refused}) => BUTTONS.includes(action.verb) && refused === null);
  const others = offered.filter(each => !buttons.includes(each));
  return html`
    ${repeat(buttons, ({action}) => action.verb, ({action}) => html`<button @click=${() => void act(action)}>${action.text}</button>`)}
    ${others.length === 0
      ? nothing
      : html`<nb-menu .model=${{
          label: "More actions",
          end: true,
          actions: others.map(({action, refused}) => ({text: action.text, refused, danger: action.danger ?? false, act: () => void act(action)})),
        }}></nb-menu>`}
  `;
}

/** @param {VmView} vm */
const about = vm =>
  facts([
    ["Size", `${vm.vcpus} CPU, ${mib(vm.memory_mib)} memory, ${gib(vm.disk_gib)} disk`],
    vm.pending_resize && vm.running_spec ? ["Runs with", `${vm.running_spec.vcpus} CPU, ${mib(vm.running_spec.memory_mib)}, ${gib(vm.running_spec.disk_gib)} until its next start`] : null,
    ["Image", vm.rescue ? html`${linkTo("image", null, vm.image)}, in rescue from ${vm.rescue}` : linkTo("image", null, vm.image)],
    vm.flavor ? ["Flavor", linkTo("flavor", null, vm.flavor)] : null,
    vm.description ? ["Description", vm.description] : null,
    ["Labels", pairs(vm.labels)],
    vm.tags.length > 0 ? ["Tags", vm.tags.join(", ")] : null,
    ["Restarts by itself", `${words(vm.restart_policy)}${vm.restarts ? `, ${vm.restarts} in a row` : ""}${vm.restart_at ? `, next ${ago(vm.restart_at)}` : ""}`],
    ["User-data", vm.has_user_data ? "given (never shown)" : "none"],
    vm.protected ? ["Protected", "cannot be deleted"] : null,
    ["Created", html`${moment(vm.created_at)}${vm.created_by ? ` by ${vm.created_by}` : ""}`],
    ["Id", html`<code>${vm.id}</code>`],
  ]);

/** @param {VmView} vm */
const place = vm =>
  facts([
    ["Node", vm.node ? linkTo("node", null, vm.node) : "none yet"],
    ...vm.considered.filter(({reason}) => reason !== null && vm.node === null).map(({node, reason}) => /** @type {const} */ ([`Not on ${node}`, reason])),
    ["Addresses", vm.addresses.length ? html`${vm.address_sources.map(({address, source}) => html`<div><code>${address}</code> <span class="small">${source}</span></div>`)}` : "none known"],
    vm.mac ? ["MAC", html`<code>${vm.mac}</code>`] : null,
    ["Runs since", vm.phase === "running" ? moment(vm.started_at) : "–"],
    ["Boots", `${vm.guest_boots}${vm.rebuilds ? `, rebuilt ${vm.rebuilds} times` : ""}`],
    ...vm.host_keys.map(({type, fingerprint}) => /** @type {const} */ ([`Host key ${type}`, html`<code class="break">${fingerprint}</code>`])),
    ["As of", `version ${vm.version}, position ${vm.position}`],
  ]);

/** @param {Record<string, string>} labels */
function pairs(labels) {
  const found = Object.entries(labels);
  return found.length === 0 ? "none" : html`${found.map(([key, value]) => html`<code class="label">${key}=${value}</code> `)}`;
}
