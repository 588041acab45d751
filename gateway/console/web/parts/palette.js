/** Ctrl-K: go anywhere by typing a few letters. `?`: all keys. */

import {html, nothing} from "../core/html.js";
import {open} from "./dialog.js";

/** @typedef {{text: string, note?: string, act: () => void}} Place */

/** The most places that are shown. */
const SHOWN = 12;

/**
 * The places whose text has all letters of what was typed, in their order; the closest first. Pure.
 * @param {Place[]} places
 * @param {string} typed
 */
export function found(places, typed) {
  const wanted = typed.toLowerCase().replaceAll(" ", "");
  return places
    .map(place => ({place, cost: cost(`${place.text} ${place.note ?? ""}`.toLowerCase(), wanted)}))
    .filter(({cost: each}) => each !== null)
    .sort((one, other) => /** @type {number} */ (one.cost) - /** @type {number} */ (other.cost))
    .slice(0, SHOWN)
    .map(({place}) => place);
}

/**
 * How far apart the letters are; null if one is missing.
 * @param {string} text
 * @param {string} wanted
 */
function cost(text, wanted) {
  let at = -1;
  let total = 0;
  for (const letter of wanted) {
    const next = text.indexOf(letter, at + 1);
    if (next < 0) return null;
    total += at < 0 ? next / 4 : next - at - 1;
    at = next;
  }
  return total;
}

/**
 * @param {Place[]} places
 * @param {(typed: string) => Promise<Place[]>} search more places, asked for when somebody has typed
 */
export async function palette(places, search) {
  let typed = "";
  let at = 0;
  /** @type {Place[]} */
  let more = [];
  let asked = 0;
  const act = await open(
    "Go to",
    dialog => {
      const shown = found([...places, ...more], typed);
      const move = (/** @type {number} */ by) => {
        at = (at + by + shown.length) % Math.max(1, shown.length);
        dialog.changed();
      };
      const input = (/** @type {Event} */ event) => {
        typed = /** @type {HTMLInputElement} */ (event.target).value;
        at = 0;
        const mine = (asked += 1);
        void search(typed).then(result => {
          if (mine !== asked) return;
          more = result;
          dialog.changed();
        });
        dialog.changed();
      };
      const key = (/** @type {KeyboardEvent} */ event) => {
        if (event.key === "ArrowDown") move(1);
        else if (event.key === "ArrowUp") move(-1);
        else if (event.key === "Enter") dialog.close(shown[at]?.act);
        else return;
        event.preventDefault();
      };
      return html`
        <div class="dialog-body palette">
          <input type="text" role="combobox" aria-label="Page, project or virtual machine" aria-expanded="true" aria-controls="palette-list"
            aria-activedescendant=${shown[at] ? `palette-${at}` : nothing} placeholder="Page, project or VM…" autocomplete="off" spellcheck="false"
            @input=${input} @keydown=${key}>
          <ul id="palette-list" role="listbox" aria-label="Places">
            ${shown.map(
              (place, index) => html`
                <li id="palette-${index}" role="option" aria-selected=${index === at} @click=${() => dialog.close(place.act)}>
                  ${place.text}${place.note ? html` <span class="small">${place.note}</span>` : nothing}
                </li>
              `,
            )}
          </ul>
          ${shown.length === 0 ? html`<p class="small">Nothing has this name.</p>` : nothing}
        </div>
      `;
    },
  );
  if (typeof act === "function") act();
}

/**
 * All keys that work now.
 * @param {import("../core/keys.js").Key[]} keys
 */
export const help = keys =>
  open(
    "Keys",
    () => html`
      <div class="dialog-body">
        <dl class="keys">
          ${keys.map(({key, words}) => html`<div><dt>${key.split(" ").map(each => html`<kbd>${each}</kbd> `)}</dt><dd>${words}</dd></div>`)}
        </dl>
      </div>
    `,
  );
