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
 * @returns {Promise<Moment | null>} null if the log does not say
 */
export async function describe(api, at, signal) {
  if (!isPosition(at)) return null;
  /** @type {ListOf<CloudEvent>} */
  const found = await api.get("/v1/events", {from: at, to: at, limit: 1}, {signal, now: true});
  const event = found.items[0];
  return event ? {position: event.position, time: event.time ?? ""} : null;
}

/**
 * @param {string} at
 * @param {Moment | null} known
 */
export function words(at, known) {
  if (!isPosition(at)) return `as it was at ${moment(at)}`;
  return known ? `as it was at ${moment(known.time)}, position ${at}` : `as it was at position ${at}`;
}
