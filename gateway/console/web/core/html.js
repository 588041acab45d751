/**
 * Templates, the only way in which values become parts of the page. Text stays text: nothing here makes markup of it.
 * All modules import these names from here, so that one line says which library it is.
 */

import {html, nothing, render, svg} from "../vendor/lit-html/lit-html.js";
import {repeat} from "../vendor/lit-html/directives/repeat.js";
import {live as current} from "../vendor/lit-html/directives/live.js";
import {ref} from "../vendor/lit-html/directives/ref.js";

export {current, html, nothing, ref, render, repeat, svg};

const ICONS = new URL("../icons.svg", import.meta.url).pathname;

/**
 * A symbol of icons.svg. It is for the eyes: what it means stands beside it, or in the label of its button.
 * @param {string} name
 */
export const icon = name => html`<svg class="icon" aria-hidden="true"><use href="${ICONS}#${name}"></use></svg>`;

/**
 * A link to another site, from a value of the platform. Anything but http(s) is shown as text.
 * @param {string} url
 */
export const outward = url =>
  /^https?:\/\//i.test(url) ? html`<a href=${url} rel="noreferrer noopener" target="_blank">${url}</a>` : html`${url}`;

/**
 * A part of the page with a state of its own. What it shows follows from `model`, which its user sets with each of its
 * own renderings (`.model=${…}`), and from what `view` keeps. It has no shadow tree: the style sheets of the page apply.
 * @template M
 */
export class Part extends HTMLElement {
  /** @type {M | undefined} */ #model;
  #queued = false;

  /** @returns {M} */
  get model() {
    return /** @type {M} */ (this.#model);
  }

  set model(value) {
    const before = this.#model;
    this.#model = value;
    this.given(value, before);
    this.changed();
  }

  /**
   * Called with each new model, before the part is rendered.
   * @param {M} _new
   * @param {M | undefined} _before
   */
  given(_new, _before) {}

  connectedCallback() {
    this.changed();
  }

  /** Render again, once, when what runs now has ended. */
  changed() {
    if (this.#queued) return;
    this.#queued = true;
    queueMicrotask(() => {
      this.#queued = false;
      if (this.isConnected && this.#model !== undefined) {
        render(this.view(this.#model), this);
        this.shown();
      }
    });
  }

  /**
   * @param {M} _model
   * @returns {unknown} a template
   */
  view(_model) {
    return nothing;
  }

  /** Called after each rendering. */
  shown() {}
}
