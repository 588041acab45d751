/** The key that gives the keyboard back to the page: a console and a display send all other keys to the guest. */

import {html} from "../core/html.js";

/** The words that say it. */
export const LEAVES = html`<p class="small">All keys go to the guest; <kbd>Ctrl</kbd> <kbd>Alt</kbd> <kbd>Enter</kbd> gives them back to this page.</p>`;

/**
 * Leave what has the keyboard, if this is the key for it. To be called before anything else gets the key.
 * @param {KeyboardEvent} event
 */
export function leave(event) {
  if (event.key !== "Enter" || !event.ctrlKey || !event.altKey) return;
  event.preventDefault();
  event.stopPropagation();
  const tab = document.querySelector(".tabs [aria-current]");
  if (tab instanceof HTMLElement) tab.focus();
}
