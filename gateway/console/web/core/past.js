/** The moment that is shown: what the address says, and what the log knows of it. */

import {OF_KIND, shown} from "./links.js";
import {describe, isPosition, momentOf, words} from "./time.js";

/** The longest text of an address that is repeated. */
const LONGEST = 60;

export class Past {
  /** What the log says of it. @type {import("./time.js").Moment | "before" | null} */ #known = null;
  /** What is in the address in place of a moment. @type {string | null} */ odd = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {() => void} changed
   */
  constructor(api, changed) {
    this.api = api;
    this.changed = changed;
  }

  /** @param {string | undefined} text the moment in the address */
  async arrive(text) {
    const at = momentOf(text);
    this.odd = text !== undefined && at === null ? text.slice(0, LONGEST) : null;
    if (at === shown.at) return;
    shown.at = at;
    this.api.at = at;
    this.#known = null;
    document.documentElement.toggleAttribute("data-past", at !== null);
    if (at === null) return;
    try {
      const known = await describe(this.api, at, AbortSignal.timeout(10_000));
      if (at === shown.at) this.#known = known;
    } catch {
      // the band then shows what the address says
    }
    this.changed();
  }

  /** What is shown, in words; null for now. */
  get words() {
    const {at} = shown;
    if (at === null) return null;
    if (isPosition(at) ? Number(at) > this.api.position : Date.parse(at) > Date.now()) {
      return `The address names a moment that has not come yet: ${isPosition(at) ? `position ${at}; the log ends at ${this.api.position}` : words(at, null).replace("as it was at ", "")}.`;
    }
    if (this.#known === "before") return `You see the platform ${words(at, null)}, before the first event. There was nothing yet.`;
    return `You see the platform ${words(at, this.#known)}. Nothing can be changed here.`;
  }
}

/**
 * The resource that a page is about, as filters of `GET /v1/diff` and `GET /v1/events`; nothing for the whole cloud.
 * @param {string} pattern the path of the page
 * @param {Record<string, string>} params
 * @returns {Record<string, string>}
 */
export function scopeOf(pattern, params) {
  const name = /:([a-z_]+)[^:]*$/.exec(pattern)?.[1] ?? "";
  const value = params[name];
  if (value === undefined || OF_KIND[name] === undefined) return {};
  if (name === "project") return {project: value};
  return {kind: name, id: value, ...(params["project"] ? {project: params["project"]} : {})};
}
