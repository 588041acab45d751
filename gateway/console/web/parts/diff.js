/** What changed between two moments, in the words of the platform (`GET /v1/diff`). */

import {html, nothing} from "../core/html.js";
import {moment} from "../core/format.js";
import {linkTo} from "../core/links.js";
import {by} from "./timeline.js";

/**
 * @typedef {object} DiffItem
 * @property {string} kind
 * @property {string} id
 * @property {string | null} project
 * @property {string | null} name
 * @property {"created" | "deleted" | "changed" | "came_and_went" | "unchanged"} what
 * @property {string[]} words
 * @property {{position: number, time: string, type: string, actor: string, words: string, why: string | null}[]} events
 * @property {number} more_events
 */

const MARKS = {created: "+", deleted: "−", changed: "~", came_and_went: "±", unchanged: "="};

/** @param {DiffItem[]} items */
export const diff = items => html`
  <ul class="diff">
    ${items.map(
      item => html`
        <li class=${item.what}>
          <p><span class="diff-mark" aria-hidden="true">${MARKS[item.what]}</span> <strong>${item.kind.replaceAll("_", " ")} ${linkTo(item.kind, item.project, item.id, item.name ?? item.id)}</strong>
            ${item.project ? html`<span class="small">in ${item.project}</span>` : nothing}</p>
          ${item.words.map(text => html`<p>${text}</p>`)}
          ${item.events.map(
            event => html`<p class="small">${moment(event.time)} · ${event.words} · ${event.why ?? by(event.actor)} · position ${event.position}</p>`,
          )}
          ${item.more_events ? html`<p class="small">and ${item.more_events} more events</p>` : nothing}
        </li>
      `,
    )}
  </ul>
`;
