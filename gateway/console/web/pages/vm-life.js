/** What happened to a VM: its operations with their steps, a search in them, and more of them. */

import {aborted} from "../core/api.js";
import {html, nothing, repeat} from "../core/html.js";
import {clock, counted, duration, moment, words} from "../core/format.js";
import {link, whose} from "../core/links.js";
import {newest} from "../core/newest.js";
import {empty, operationBadge} from "../parts/badge.js";
import {filters} from "../parts/filters.js";
import {ENDED} from "../parts/progress.js";
import {sayRefused} from "../parts/toast.js";
import {by, itemOf, WRONG} from "../parts/timeline.js";
import {fits, grouped, took, WHO} from "./vm-groups.js";

/** @typedef {import("../parts/timeline.js").Item} Item */
/** @typedef {import("./vm-groups.js").Group} Group */
/**
 * @typedef {object} History
 * @property {string} of of which VM, at which moment
 * @property {Item[]} items the newest first
 * @property {boolean} more whether there are earlier ones
 * @property {Map<string, Operation>} operations
 */

/** How many events are read with each step, and how many operations with each page. */
const STEP = 50;

/**
 * What happened until now. What was read before is kept, if nothing is missing between.
 * @param {Context} context
 * @param {History | undefined} before
 * @returns {Promise<History>}
 */
export async function read(context, before) {
  const {params, at} = context;
  const of = JSON.stringify([params, at]);
  const known = before?.of === of ? before : null;
  const {items, more} = await page(context, null);
  const operations = await operationsOf(context, items, known?.operations);
  if (known === null) return {of, items, more, operations};
  const last = items.at(-1)?.position ?? 0;
  const joined = last <= (known.items[0]?.position ?? 0);
  const older = joined ? known.items.filter(({position}) => position < last) : [];
  // The same object: earlier events may just be on their way into it.
  return Object.assign(known, {items: [...items, ...older], more: older.length > 0 ? known.more : more, operations});
}

/**
 * A page of events, the newest first.
 * @param {Context} context
 * @param {number | null} before only events before this position
 */
async function page(context, before) {
  const query = {project: context.params["project"], vm: context.params["vm"]};
  const found = await newest(before === null ? context : {...context, at: String(before - 1)}, query, STEP + 1);
  return {items: found.slice(0, STEP).map(itemOf), more: found.length > STEP};
}

/**
 * The operations of events. Those that are known and have ended are not read again.
 * @param {Context} context
 * @param {Item[]} items
 * @param {Map<string, Operation>} known
 * @returns {Promise<Map<string, Operation>>}
 */
async function operationsOf({api, params, signal}, items, known = new Map()) {
  const all = new Map(known);
  const wanted = new Set(items.map(({operation}) => operation).filter(id => id !== null && !ENDED.has(all.get(id)?.status ?? "")));
  if (wanted.size === 0) return all;
  await api.pages(
    "/v1/operations",
    {project: params["project"], vm: params["vm"]},
    (/** @type {Operation[]} */ found) => {
      for (const each of found) {
        all.set(each.id, each);
        wanted.delete(each.id);
      }
      return wanted.size > 0;
    },
    {signal, limit: STEP},
  );
  return all;
}

/**
 * @param {Context} context
 * @param {History} life
 */
async function earlier(context, life) {
  const first = life.items.at(-1)?.position ?? 1;
  if (first <= 1) return;
  try {
    const {items, more} = await page(context, first);
    life.operations = await operationsOf(context, items, life.operations);
    const last = life.items.at(-1)?.position ?? 1;
    life.items = [...life.items, ...items.filter(({position}) => position < last)];
    life.more = more;
    context.changed();
  } catch (error) {
    if (!aborted(error)) sayRefused(error);
  }
}

/**
 * @param {Context} context
 * @param {History} life
 */
export function shown(context, life) {
  const {query, params} = context;
  const {items, more, operations} = life;
  const groups = grouped(items).filter(group => group.items.some(item => fits(item, query["q"], query["who"])));
  const count = groups.reduce((sum, group) => sum + group.items.length, 0);
  const whole = link("/log", {}, "Search in the whole log", {kind: "vm", id: params["vm"], project: params["project"]});
  return html`
    ${filters(context, "Search in what happened", [{name: "who", label: "Caused by", options: WHO}])}
    <p class="small" role="status">${counted(count, "event")}${count < items.length ? ` of ${items.length}` : ""}${more ? ", and earlier ones" : ""}. ${whole}</p>
    ${groups.length === 0
      ? empty("No events", more ? "None of those that are shown fits. There are earlier ones." : "None fits.")
      : html`<ol class="history">${repeat(groups, ({items: [first]}) => first?.position, group => one(context, group, operations))}</ol>`}
    ${more ? html`<button type="button" @click=${() => void earlier(context, life)}>Show earlier events</button>` : nothing}
  `;
}

/**
 * @param {Context} context
 * @param {Group} group
 * @param {Map<string, Operation>} operations
 */
function one(context, group, operations) {
  const {operation: id, items} = group;
  const operation = id === null ? undefined : operations.get(id);
  const {begun, whole, ready} = took(group, operation);
  const missing = operation ? operation.events.filter(({position}) => !items.some(item => item.position === position)).length : 0;
  return html`
    <li class="history-group">
      ${id === null
        ? nothing
        : html`
            <p class="history-head">
              <strong>${link("/operations/:operation", {operation: id}, operation ? words(operation.verb) : "An operation")}</strong>
              ${operation ? operationBadge(operation.status) : nothing}
              <span class="small">${operation ? html`by ${whose(operation.actor)} · ` : nothing}<time datetime=${new Date(begun).toISOString()} title=${moment(new Date(begun).toISOString())}>${moment(new Date(begun).toISOString())}</time>${whole === null ? nothing : ` · took ${duration(whole)}`}${ready === null ? nothing : ` · guest ready after ${duration(ready)}`}</span>
            </p>
            ${operation?.problem ? html`<p class="field-error">${operation.problem.detail} <span class="small">${operation.problem.code}</span></p>` : nothing}
            ${missing > 0 ? html`<p class="small">${counted(missing, "step")} of it ${missing === 1 ? "is" : "are"} earlier than what is shown.</p>` : nothing}
          `}
      <ol class="timeline">${items.map((item, at) => step(context, item, items[at - 1], id === null ? null : begun))}</ol>
    </li>
  `;
}

/**
 * @param {Context} context
 * @param {Item} item
 * @param {Item | undefined} before
 * @param {number | null} begun when its operation was accepted; null: it belongs to none
 */
function step({travel}, {position, type, time, words: said, why, actor}, before, begun) {
  const cause = why ?? by(actor);
  const when = begun === null ? moment(time) : `${clock(time)}, +${duration(Math.max(0, Date.parse(time) - begun))}`;
  const passed = before ? Math.max(0, Date.parse(time) - Date.parse(before.time)) : null;
  return html`
    <li class=${WRONG.test(type) ? "wrong" : ""}>
      <span class="timeline-what">${link("/log/:position", {position: String(position)}, said ?? words(type))}</span>
      <span class="small">
        <time datetime=${time} title=${moment(time)}>${when}</time>${passed === null ? nothing : ` · ${duration(passed)} after the step before`}${cause ? html` · ${cause}` : nothing}
        · <button type="button" class="link" @click=${() => travel(String(position))}>position ${position}</button>
      </span>
    </li>
  `;
}
