/** Events as a line through time: what happened, who or what did it, how long after the event before. */

import {html, nothing, repeat} from "../core/html.js";
import {clock, duration, moment, words} from "../core/format.js";

/** @typedef {{position: number, type: string, time: string, actor: string, kind: string, id: string, project: string, operation: string | null, words?: string | null, why?: string | null}} Item */

/** Types of events that say that something is wrong. */
export const WRONG = /Failed|Lost|Refused|Rejected|Crash|TimedOut|Unschedulable/;

/**
 * An event of the audit, as a timeline shows it.
 * @param {CloudEvent} event
 * @returns {Item}
 */
export function itemOf(event) {
  const [, , project = "", kind = "", id = ""] = event.subject.split(".");
  const type = event.type.slice(event.type.lastIndexOf(".") + 1);
  const {position, time = "", actor = "", operationid: operation = null, words: said = null, why = null} = event;
  return {position, type, time, actor, kind, id, project, operation, words: said, why};
}

/**
 * Who caused an event, in words.
 * @param {string} actor
 */
export function by(actor) {
  if (actor.startsWith("node:")) return `node ${actor.slice(5)} reported it`;
  if (actor.startsWith("guest:")) return "the guest said so";
  if (actor.startsWith("system:")) return `the platform (${actor.slice(7)})`;
  return actor ? `by ${actor}` : "";
}

/**
 * The events, the newest first.
 * @param {Item[]} items
 * @param {{subject?: (item: Item) => unknown, go?: (position: number) => void}} how
 *   `subject`: what an event is about. `go`: travel to the moment after an event.
 */
export const timeline = (items, {subject, go} = {}) => html`
  <ol class="timeline">
    ${repeat(
      items,
      item => item.position,
      (item, at) => {
        const before = items[at + 1];
        const cause = item.why ?? by(item.actor);
        const passed = before ? Date.parse(item.time) - Date.parse(before.time) : null;
        return html`
          <li class=${WRONG.test(item.type) ? "wrong" : ""}>
            <span class="timeline-what">${item.words ?? words(item.type)}${subject ? html` <span class="small">${subject(item)}</span>` : nothing}</span>
            <span class="small">
              <time datetime=${item.time} title=${moment(item.time)}>${clock(item.time)}</time>${cause ? html` · ${cause}` : nothing}${passed !== null && passed >= 0 ? html` · ${duration(passed)} later` : nothing}
              · ${go ? html`<button type="button" class="link" @click=${() => go(item.position)}>position ${item.position}</button>` : html`position ${item.position}`}
            </span>
          </li>
        `;
      },
    )}
  </ol>
`;
