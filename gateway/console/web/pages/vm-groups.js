/** What happened to a VM, as operations with their steps; and what an operation waits for. Pure. */

/** @typedef {import("../parts/timeline.js").Item} Item */
/**
 * @typedef {object} Group
 * @property {string | null} operation null: one event that belongs to none
 * @property {Item[]} items the oldest first
 * @property {Item | null} ready what the guest of this operation said later; also the last of `items`
 */

/** Who may have caused an event: the words of the filter, and how its actor begins. @type {Record<string, string>} */
const SORTS = {nodes: "node:", guests: "guest:", platform: "system:"};
const PEOPLE = "people";
export const WHO = [PEOPLE, ...Object.keys(SORTS)];

/** After these the guest that was started is another one, or none. */
const ENDS = new Set(["VmStopped", "VmLost", "VmDeleted", "VmGuestRebooted", "VmFailed"]);

/**
 * Events by their operations. The group whose last event is the newest comes first. A guest that is ready belongs to the
 * operation that started it.
 * @param {readonly Item[]} items the newest first
 * @returns {Group[]}
 */
export function grouped(items) {
  /** @type {Group[]} */
  const groups = [];
  /** @type {Map<string, Group>} */
  const known = new Map();
  /** @type {Group | null} */
  let started = null;
  for (const item of items.toReversed()) {
    const {operation, type} = item;
    /** @type {Group | null | undefined} */
    const owner = operation === null ? (type === "VmGuestReady" ? started : null) : known.get(operation);
    /** @type {Group} */
    const group = owner ?? {operation, items: [], ready: null};
    if (!owner) groups.push(group);
    group.items.push(item);
    if (operation !== null) known.set(operation, group);
    if (type === "VmGuestReady") {
      if (owner) owner.ready = item;
      started = null;
    } else if (type === "VmStarted") started = group;
    else if (ENDS.has(type)) started = null;
  }
  return groups.sort((a, b) => last(b).position - last(a).position);
}

/** @param {Group} group @returns {Item} */
const last = group => /** @type {Item} */ (group.items.at(-1));

/**
 * How long a group took, in milliseconds: until its operation has ended, and until its guest was ready; null if there is none.
 * @param {Group} group
 * @param {{accepted_at: string, ended_at: string | null} | undefined} operation
 */
export function took({items, ready}, operation) {
  const [first] = items;
  const own = items.filter(item => item !== ready);
  const begun = Date.parse(operation?.accepted_at ?? first?.time ?? "");
  const end = operation ? operation.ended_at : own.length > 1 ? (own.at(-1)?.time ?? null) : null;
  const since = (/** @type {string | null | undefined} */ time) => (time ? Math.max(0, Date.parse(time) - begun) : null);
  return {begun, whole: since(end), ready: since(ready?.time)};
}

/**
 * Whether an event fits the filter.
 * @param {Item} item
 * @param {string | undefined} search all of its words, in any order and case
 * @param {string | undefined} who one of `WHO`
 */
export function fits(item, search, who) {
  const {type, words, why, actor, position, operation, time} = item;
  const sort = who === undefined || who === "" ? null : who;
  if (sort === PEOPLE && Object.values(SORTS).some(begin => actor.startsWith(begin))) return false;
  if (sort !== null && sort !== PEOPLE && !actor.startsWith(SORTS[sort] ?? "?")) return false;
  const text = [type, words, why, actor, position, operation, time].join(" ").toLowerCase();
  return (search ?? "").toLowerCase().split(/\s+/).every(word => text.includes(word));
}

/** What the guest or the node has to do, by the verb. @type {Record<string, string>} */
const VERBS = {
  create: "its node to make its disk and start it",
  stop: "its guest to shut down",
  restart: "its guest to shut down and its node to start it again",
  start: "its node to start it",
  pause: "its node to pause it",
  suspend: "its node to save its memory",
  resume: "its node to resume it",
  delete: "its node to remove it",
  rebuild: "its node to make the new disk and start it",
  rescue: "its node to make the rescue disk and start it",
  unrescue: "its node to start it from its own disk",
};

/**
 * What the pending operation of a VM waits for, in words.
 * @param {Pick<VmView, "phase" | "node" | "pending" | "preparing" | "considered">} vm
 * @param {readonly Item[]} items what happened, the newest first: the platform has words for what a node prepares
 */
export function awaited({phase, node, pending, preparing, considered}, items) {
  if (phase === "requested") return "Waiting for a node";
  if (phase === "unschedulable") {
    const why = considered.filter(({reason}) => reason !== null).map(each => `${each.node}: ${each.reason}`);
    return `Waiting for room on a node${why.length > 0 ? ` (${why.join("; ")})` : ""}`;
  }
  if (phase === "lost") return `Waiting for node ${node} to come back`;
  if (preparing !== null) return items.find(({type}) => type === "VmPreparing")?.words ?? `Node ${node} prepares it: ${preparing}`;
  return `Waiting for ${VERBS[pending?.verb ?? ""] ?? (node ? `node ${node}` : "the platform")}`;
}
