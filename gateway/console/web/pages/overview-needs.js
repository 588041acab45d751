/** What needs somebody: what is broken, late, or ends soon. Each line says what it is and leads there. */

import {html, nothing} from "../core/html.js";
import {ago, counted, moment, words} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {badge, operationBadge} from "../parts/badge.js";

/** How many lines of one sort are shown. */
const MOST = 8;
/** Milliseconds after its deadline from which on an operation is overdue: the platform ends it by itself before. */
const LATE = 30_000;
/** The parts of the platform, in words. */
const PARTS = /** @type {const} */ ({
  commands: "Commands are not decided",
  log: "The log does not store",
  nats: "The log cannot be read",
  postgres: "The read models cannot be read",
  projections: "The read models are not kept up to date",
});

/** @typedef {import("./overview.js").Overview} Overview */
/** @typedef {{failing: boolean, view: unknown}} Line */

/**
 * The lines of all that needs somebody, the most urgent first.
 * @param {Overview} data
 * @param {number} now milliseconds since 1970
 * @returns {unknown[]}
 */
export function needs(data, now = Date.now()) {
  const {health, tokens} = data.now ?? {health: null, tokens: []};
  return [
    ...platform(health),
    ...(data.nodes ?? []).flatMap(node => host(node, now)),
    ...some(data.wrong(), vm => html`<li>${badge(vm.phase)} ${linkTo("vm", vm.project, vm.id, vm.name)} <span class="small">${vm.why ?? ""}</span></li>`, "VM"),
    ...some(overdue(data, now), late => html`<li>${operationBadge("overdue")} ${late.what} <span class="small">should have ended ${ago(late.deadline, now)}</span></li>`, "operation"),
    ...some(tokens, token => html`<li>${badge("ends soon", "warn")} ${link("/tokens", {}, html`Token ${token.name}`)} of ${token.principal} <span class="small">ends ${ago(token.expires_at, now)}, ${moment(token.expires_at)}</span></li>`, "token"),
  ];
}

/**
 * The first of some things as lines, and how many more there are.
 * @template T
 * @param {T[]} all
 * @param {(one: T) => unknown} line
 * @param {string} noun
 */
const some = (all, line, noun) => [
  ...all.slice(0, MOST).map(line),
  ...(all.length > MOST ? [html`<li class="small">and ${counted(all.length - MOST, `more ${noun}`)}</li>`] : []),
];

/** @param {HealthView | null} health null: not asked, or no answer */
function platform(health) {
  if (health === null || health.status === "ok") return [];
  const {managers = [], malformed = {}, parked = 0, parked_more: more = 0, clocks_off: clocks = []} = health;
  /** @type {unknown[]} */
  const lines = [];
  for (const [name, text] of Object.entries(PARTS)) {
    const part = health[/** @type {keyof typeof PARTS} */ (name)];
    if (part && part.status !== "ok") lines.push(html`<li>${badge(part.status, "bad")} ${text}${part.since ? html` since ${moment(part.since)}` : nothing} <span class="small">${part.detail ?? ""}</span></li>`);
  }
  for (const each of managers.filter(({failing_since: since}) => since)) {
    lines.push(html`<li>${badge("failing", "bad")} ${link("/status", {}, html`The manager ${each.name}`)} has failed since ${moment(each.failing_since)} <span class="small">${each.last_error ?? ""}</span></li>`);
  }
  if (parked + more > 0) lines.push(html`<li>${badge("parked", "warn")} ${link("/parked", {}, `${counted(parked, "message")} parked`)}${more ? html` <span class="small">and ${more} that found no room</span>` : nothing}</li>`);
  for (const [source, found] of Object.entries(malformed)) {
    lines.push(html`<li>${badge("malformed", "warn")} ${link("/status", {}, html`${counted(found.count, "malformed message")} of ${source.replaceAll("_", " ")}`)} <span class="small">${found.last_reason ?? ""}</span></li>`);
  }
  for (const {node, offset_seconds: seconds} of clocks) {
    lines.push(html`<li>${badge("clock", "warn")} The clock of node ${linkTo("node", null, node)} differs by ${seconds.toFixed(1)} s</li>`);
  }
  if (lines.length === 0) lines.push(html`<li>${badge(health.status)} The platform says that it is ${health.status}.</li>`);
  return lines;
}

/**
 * What is wrong with a host.
 * @param {NodeView} node
 * @param {number} now
 */
function host(node, now) {
  if (node.retired_at !== null) return [];
  const name = html`Node ${linkTo("node", null, node.id)}`;
  /** @type {unknown[]} */
  const lines = [];
  if (node.lost) lines.push(html`<li>${badge("lost")} ${name} was last seen ${ago(node.last_seen, now)}: ${counted(node.vms, "VM")} on it</li>`);
  if (node.waiting.length > 0) lines.push(html`<li>${badge("waiting", "warn")} ${name}: ${counted(node.waiting.length, "further daemon")} of its name ${node.waiting.length === 1 ? "waits" : "wait"}, on ${node.waiting.map(({host}) => host).join(", ")}</li>`);
  if (node.malformed_documents) lines.push(html`<li>${badge("malformed", "warn")} ${name} cannot read ${counted(node.malformed_documents, "document")}</li>`);
  if (node.cordoned && node.vms === 0 && !node.lost) lines.push(html`<li>${badge("cordoned")} ${name} takes no VMs and has none: retire it, or let it take VMs again</li>`);
  return lines;
}

/**
 * Operations that should have ended, by the list of operations and by the VMs that are known.
 * @param {Overview} data
 * @param {number} now
 */
function overdue({operations, vms}, now) {
  const late = (/** @type {string | null | undefined} */ deadline) => Boolean(deadline) && now - Date.parse(deadline ?? "") > LATE;
  const found = new Map(
    operations
      .filter(({deadline}) => late(deadline))
      .map(({id, verb, kind, project, resource, deadline}) => [id, {deadline, what: html`${link("/operations/:operation", {operation: id}, words(verb))} of ${linkTo(kind, project, resource)}`}]),
  );
  for (const {id, project, name, pending} of vms.flatMap(rows => rows.list)) {
    if (pending === null || !late(pending.deadline)) continue;
    found.set(pending.operation, {deadline: pending.deadline, what: html`${link("/operations/:operation", {operation: pending.operation}, words(pending.verb))} of ${linkTo("vm", project, id, name)}`});
  }
  return [...found.values()];
}
