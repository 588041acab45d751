/** Short messages at the edge of the page, which go by themselves. What needs an answer is a dialogue instead. */

import {html, icon, Part} from "../core/html.js";
import {asProblem} from "../core/problem.js";

/** @typedef {{words: string, look: "good" | "bad" | "busy", link?: string}} Toast */

const SECONDS = 6;

/** @extends {Part<Toast[]>} */
class Toasts extends Part {
  /** @param {Toast[]} toasts */
  view(toasts) {
    return toasts.map(
      toast => html`
        <div class="toast ${toast.look}">
          <span>${toast.words}</span>
          ${toast.link ? html`<a href=${toast.link}>Show</a>` : ""}
          <button class="plain" aria-label="Dismiss" @click=${() => this.remove_(toast)}>${icon("close")}</button>
        </div>
      `,
    );
  }

  /** @param {Toast} toast */
  remove_(toast) {
    this.model = this.model.filter(each => each !== toast);
  }
}
customElements.define("nb-toasts", Toasts);

/**
 * Show a message.
 * @param {string} words
 * @param {Toast["look"]} look
 * @param {string} [link] an address of the console
 */
export function say(words, look = "good", link) {
  const element = /** @type {Toasts | null} */ (document.querySelector("nb-toasts"));
  if (!element) return;
  const toast = link === undefined ? {words, look} : {words, look, link};
  element.model = [...(element.model ?? []).slice(-3), toast];
  setTimeout(() => element.remove_(toast), SECONDS * 1000 * (look === "bad" ? 2 : 1));
}

/** Take all messages away: their reader has signed out. */
export function silence() {
  const element = /** @type {Toasts | null} */ (document.querySelector("nb-toasts"));
  if (element) element.model = [];
}

/**
 * Show what was refused, where there is no better place for it.
 * @param {unknown} error
 */
export const sayRefused = error => say(asProblem(error).detail, "bad");
