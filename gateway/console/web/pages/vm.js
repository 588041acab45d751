/** One virtual machine: its state, what can be done with it, its operation under way, and all that has happened to it. */

import {html, nothing} from "../core/html.js";
import {moment, words} from "../core/format.js";
import {link} from "../core/links.js";
import {Problem} from "../core/problem.js";
import {badge, facts, refusal} from "../parts/badge.js";
import "../parts/progress.js";
import {actions, verbsOf} from "./vm-do.js";
import {about, place} from "./vm-facts.js";
import {awaited} from "./vm-groups.js";
import {read, shown} from "./vm-life.js";
import {tabs} from "./vm-tabs.js";

/**
 * @typedef {object} One
 * @property {VmView} vm
 * @property {VerbView[] | null} verbs null: the gateway does not say
 * @property {import("./vm-life.js").History} life
 * @property {string | null} operation the one to watch: under way, or just sent from here
 */

/** @type {Page<One>} */
export const page = {
  title: ({params}, data) => data?.vm.name ?? params["vm"] ?? "Virtual machine",

  async load(context, before) {
    const {params, at} = context;
    const path = pathOf(params);
    const reading = read(context, before?.life);
    const [vm, life] = await Promise.all([stateOf(context, path, reading), reading]);
    const verbs = at === null && vm.phase !== "deleted" ? await verbsOf(context, path) : null;
    return {vm, verbs, life, operation: vm.pending?.operation ?? (before?.vm.id === vm.id ? before.operation : null)};
  },

  live({kind, id, project}, context, {vm}) {
    if (kind === "vm" && id === vm.id && project === vm.project) context.refresh();
  },

  view(context, data) {
    const {vm, verbs} = data;
    const {at} = context;
    const sent = (/** @type {string} */ operation) => {
      data.operation = operation;
    };
    return html`
      <nav class="crumbs" aria-label="Path">${link("/projects/:project/vms", {project: vm.project}, "Virtual machines")}</nav>
      <header class="page-head">
        <h1>${vm.name}</h1>
        ${badge(vm.phase)} ${vm.phase === "running" ? html`<span class="small">${vm.ready ? "ready" : "its guest is not ready yet"}</span>` : nothing}
        ${vm.rescue ? html`<span class="small">in rescue</span>` : nothing}
        <span class="grow"></span>
        ${at === null
          ? actions(context, vm, verbs, sent)
          : html`<span class="small">Actions are for the present: press <kbd>n</kbd>.</span>`}
      </header>
      ${vm.failure ? refusal(new Problem(0, vm.failure.code, vm.failure.detail), html`<p class="small">${moment(vm.failure.at)}</p>`) : nothing}
      ${vm.warnings.map(({detail}) => html`<p class="field-hint">${detail}</p>`)}
      ${underway(context, data)}
      ${tabs(context, vm, pathOf(context.params), () => overview(context, data))}
    `;
  },
};

/**
 * The state of the VM. Of one that was deleted, the API knows only what it was: after its last event it is `deleted`.
 * @param {Context} context
 * @param {string} path
 * @param {Promise<import("./vm-life.js").History>} life
 * @returns {Promise<VmView>}
 */
async function stateOf({api, signal, at}, path, life) {
  try {
    return await api.get(path, {}, {signal});
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 410 || at !== null) throw error;
    const [last] = (await life).items;
    if (last === undefined) throw error;
    return api.get(path, {at: last.position}, {signal, now: true});
  }
}

/**
 * The operation under way; in the past, the one that was under way then.
 * @param {Context} context
 * @param {One} data
 */
function underway(context, {vm, operation, life}) {
  const {api, live, at} = context;
  const {pending} = vm;
  if (at === null) {
    if (operation === null) return nothing;
    const waits = pending?.operation === operation ? awaited(vm, life.items) : null;
    return html`<div class="card"><nb-progress .model=${{id: operation, api, live, plain: true, waits, ended: () => context.refresh()}}></nb-progress></div>`;
  }
  if (pending === null) return nothing;
  return html`
    <section class="card" aria-label="Operation under way then">
      ${facts([
        ["Under way then", link("/operations/:operation", {operation: pending.operation}, words(pending.verb))],
        ["Since", moment(pending.since)],
        ["Deadline", moment(pending.deadline)],
        ["State", awaited(vm, life.items)],
      ])}
    </section>
  `;
}

/**
 * @param {Context} context
 * @param {One} data
 */
const overview = (context, {vm, life}) => html`
  <div class="cards">
    <section class="card" aria-labelledby="what"><h2 id="what">What it is</h2>${about(vm)}</section>
    <section class="card" aria-labelledby="where"><h2 id="where">Where it is</h2>${place(vm)}</section>
    <section class="card wide" aria-labelledby="happened"><h2 id="happened">What happened</h2>${shown(context, life)}</section>
  </div>
`;

/** @param {Record<string, string>} params */
const pathOf = params => `/v1/projects/${encodeURIComponent(params["project"] ?? "")}/vms/${encodeURIComponent(params["vm"] ?? "")}`;
