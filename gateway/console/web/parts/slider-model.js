/** Where the slider is and where it goes. Pure. */

/** @typedef {import("../core/marks.js").Mark} Mark */

/**
 * The position of a moment, as far as the marks know it.
 * @param {string | null} at null: now
 * @param {Mark[]} marks
 * @param {number} end the newest position of the log
 */
export function positionOf(at, marks, end) {
  if (at === null) return end;
  if (/^[0-9]+$/.test(at)) return Math.min(Number(at), end);
  return marks.findLast(mark => Date.parse(mark.time) <= Date.parse(at))?.first ?? 1;
}

/**
 * The moment some events earlier or later.
 * @param {string | null} at
 * @param {number} events
 * @param {Mark[]} marks
 * @param {number} end
 * @returns {string | null} null: now
 */
export function stepped(at, events, marks, end) {
  const next = Math.max(1, positionOf(at, marks, end) + events);
  return next >= end ? null : String(next);
}

/**
 * The mark before or after a position: where the next events are.
 * @param {number} position
 * @param {number} direction -1 or 1
 * @param {Mark[]} marks
 * @param {number} end
 */
export function markFrom(position, direction, marks, end) {
  const found = direction < 0 ? marks.findLast(({first}) => first < position) : marks.find(({first}) => first > position);
  return found?.first ?? (direction < 0 ? 1 : end);
}

/**
 * What happened about there, in words; nothing for a log without marks.
 * @param {number} position
 * @param {Mark[]} marks
 */
export function wordsOf(position, marks) {
  const mark = marks.findLast(({first}) => first <= position);
  if (mark === undefined) return null;
  const events = `${mark.events.toLocaleString("en")} event${mark.events === 1 ? "" : "s"}`;
  return {time: mark.time, events: mark.failures > 0 ? `${events}, ${mark.failures.toLocaleString("en")} failed` : events};
}
