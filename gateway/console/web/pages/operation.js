/** One operation: its progress, and its way from the command over the node to the guest. */

import {html, nothing} from "../core/html.js";
import {duration, moment, words} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {unless} from "../core/problem.js";
import {facts, operationBadge} from "../parts/badge.js";
import "../parts/progress.js";
import {ENDED} from "../parts/progress.js";
import {by, itemOf} from "../parts/timeline.js";
import {sayRefused} from "../parts/toast.js";
import {ACTIONS, run} from "./vm-actions.js";

/** What can be done about an operation from here. */
const VERBS = ["retry", "abandon"];

/** @typedef {import("../parts/timeline.js").Item & {part: string | null}} Step `part`: what it is of the way, if it is not an event of the operation */
/**
 * @typedef {object} One
 * @property {Operation} operation
 * @property {Step[]} steps the oldest first
 * @property {VmView | null} vm
 * @property {string[]} verbs that are possible now
 */

/** @type {Page<One>} */
export const page = {
  title: (_context, data) => (data ? words(data.operation.verb) : "Operation"),

  async load(context) {
    const {api, params, signal, at} = context;
    /** @type {Operation} */
    const operation = await api.get(`/v1/operations/${encodeURIComponent(params["operation"] ?? "")}`, {}, {signal});
    const steps = await way(context, operation);
    if (operation.kind !== "vm" || at !== null) return {operation, steps, vm: null, verbs: []};
    const path = `/v1/projects/${encodeURIComponent(operation.project)}/vms/${encodeURIComponent(operation.resource)}`;
    const vm = await unless(/** @type {Promise<VmView>} */ (api.get(path, {}, {signal})));
    const judged = vm && vm.phase !== "deleted" ? await unless(/** @type {Promise<{items: VerbView[]}>} */ (api.get(`${path}/verbs`, {}, {signal}))) : null;
    const concerns = vm?.pending?.operation === operation.id || operation.status === "failed" || operation.status === "timed_out";
    const possible = (judged?.items ?? []).filter(({verb, accepted}) => VERBS.includes(verb) && accepted);
    return {operation, steps, vm, verbs: concerns ? possible.map(({verb}) => verb) : []};
  },

  live({operation, kind, id}, context, data) {
    if (operation === data.operation.id || (kind === data.operation.kind && id === data.operation.resource)) context.refresh();
  },

  view(context, {operation, steps, vm, verbs}) {
    const {api, live} = context;
    const {id, verb, kind, resource, project, status} = operation;
    const act = async (/** @type {string} */ name) => {
      const action = ACTIONS.find(each => each.verb === name);
      if (!action || !vm) return;
      try {
        await run(context, vm, action);
        context.refresh();
      } catch (error) {
        sayRefused(error);
      }
    };
    return html`
      <nav class="crumbs" aria-label="Path">${link("/operations", {}, "Operations")}</nav>
      <header class="page-head">
        <h1>${words(verb)}: ${vm?.name ?? resource}</h1>
        ${operationBadge(status)}
        <span class="grow"></span>
        ${verbs.map(name => html`<button @click=${() => void act(name)}>${ACTIONS.find(each => each.verb === name)?.text ?? words(name)}</button>`)}
      </header>
      <div class="cards">
        <section class="card" aria-labelledby="state"><h2 id="state">Its state</h2>
          ${ENDED.has(status) ? nothing : html`<nb-progress .model=${{id, api, live, plain: true, ended: () => context.refresh()}}></nb-progress>`}
          ${operation.problem ? html`<div class="note bad"><p>${operation.problem.detail}</p><p class="small">${operation.problem.code}</p></div>` : nothing}
          ${operation.warnings.map(({detail}) => html`<p class="field-hint">${detail}</p>`)}
          ${facts([
            ["Resource", html`${words(kind)} ${linkTo(kind, project, resource, vm?.name ?? resource)}`],
            project ? ["Project", linkTo("project", null, project)] : null,
            ["By whom", link("/log", {}, operation.actor, {actor: operation.actor})],
            ["Accepted", moment(operation.accepted_at)],
            ["Ended", operation.ended_at ? `${moment(operation.ended_at)}, after ${duration(Date.parse(operation.ended_at) - Date.parse(operation.accepted_at))}` : "not yet"],
            operation.request_id ? ["Request", link("/log", {}, html`<code>${operation.request_id}</code>`, {request: operation.request_id})] : null,
            ["Id", html`<code>${id}</code>`],
          ])}
        </section>
        <section class="card" aria-labelledby="way"><h2 id="way">From the command to the guest</h2>
          <ol class="timeline">
            ${steps.map(
              (step, at) => html`
                <li>
                  <span class="timeline-what">${step.words ?? words(step.type)}${step.part ? html` <span class="small">${step.part}</span>` : nothing}</span>
                  <span class="small">
                    <time datetime=${step.time}>+${duration(Math.max(0, Date.parse(step.time) - Date.parse(operation.accepted_at)))}</time>${at > 0 ? html`, ${duration(Math.max(0, Date.parse(step.time) - Date.parse(steps[at - 1]?.time ?? "")))} after the step before` : nothing}
                    · ${step.why ?? by(step.actor)} · ${link("/log/:position", {position: String(step.position)}, `position ${step.position}`)}
                  </span>
                </li>
              `,
            )}
          </ol>
        </section>
      </div>
    `;
  },
};

/**
 * The events of an operation, and those that belong to it without its id (docs/http-api.md, Events).
 * @param {Context} context
 * @param {Operation} operation
 * @returns {Promise<Step[]>}
 */
async function way({api, me, signal, at}, operation) {
  const events = async (/** @type {import("../core/router.js").Query} */ query) => {
    /** @type {ListOf<CloudEvent>} */
    const {items} = await api.get("/v1/events", {...query}, {signal, now: true});
    return items;
  };
  const until = at === null ? {} : {to: at};
  const own = await events({operation: operation.id, ...until, limit: 500});
  const step = (/** @type {string | null} */ part) => (/** @type {CloudEvent} */ event) => ({...itemOf(event), part});
  const steps = own.map(step(null));
  if (operation.kind !== "vm") return steps;
  const scheduled = steps.filter(({type}) => type === "VmScheduled").at(-1);
  const node = own.find(({position}) => position === scheduled?.position)?.data?.["node"];
  if (scheduled && typeof node === "string" && me.mayAnywhere("node.read")) {
    const promised = (await events({id: node, type: "CapacityReserved", to: scheduled.position, order: "desc", limit: 50})).find(({data}) => data?.["vm"] === operation.resource);
    if (promised) steps.push(step(`promise of node ${node}`)(promised));
  }
  const started = steps.filter(({type}) => type === "VmStarted").at(-1);
  if (started) {
    const [ready] = await events({project: operation.project, vm: operation.resource, type: "VmGuestReady", after: started.position, limit: 1, ...until});
    if (ready) steps.push(step("the guest answers")(ready));
  }
  return steps.sort((a, b) => a.position - b.position);
}
