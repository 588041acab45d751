/** The moment that the console shows: now, or a position of the log, or a time. */

import {moment} from "./format.js";

/** @typedef {{position: number, time: string}} Moment */

/**
 * The moment in an address; null for now, and for a text that is none.
 * @param {string | undefined} text
 * @returns {string | null}
 */
export function momentOf(text) {
  if (text === undefined) return null;
  if (/^[1-9][0-9]{0,15}$/.test(text)) return text;
  return /^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)$/.test(text) && !Number.isNaN(Date.parse(text)) ? text : null;
}

/** @param {string} at */
export const isPosition = at => /^[0-9]+$/.test(at);

/**
 * When a moment was: the event at that position, or the last one before.
 * @param {import("./api.js").Api} api
 * @param {string} at
 * @param {AbortSignal} signal
 * @returns {Promise<Moment | "before" | null>} `before`: of the first event; null if the log does not say
 */
export async function describe(api, at, signal) {
  const query = isPosition(at) ? {from: at, to: at, limit: 1} : {to: at, order: "desc", limit: 1};
  /** @type {ListOf<CloudEvent>} */
  const found = await api.get("/v1/events", query, {signal, now: true});
  const event = found.items[0];
  if (event === undefined) return isPosition(at) ? null : "before";
  return {position: event.position, time: event.time ?? ""};
}

/**
 * @param {string} at
 * @param {Moment | "before" | null} known
 */
export function words(at, known) {
  const position = known === null || known === "before" ? null : known.position;
  if (!isPosition(at)) return `as it was at ${moment(at)}${position === null ? "" : `, after position ${position}`}`;
  return known === null || known === "before" ? `as it was at position ${at}` : `as it was at ${moment(known.time)}, position ${at}`;
}
