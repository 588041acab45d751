/** `<nb-menu .model=${…}>`: a button that opens a list of actions. An action that is not possible says why. */

import {html, icon, nothing, Part} from "../core/html.js";

/**
 * @typedef {object} Action
 * @property {string} text
 * @property {() => void} act
 * @property {string | null} [refused] why it is not possible now
 * @property {boolean} [danger]
 */
/** @typedef {{label: string, text?: unknown, actions: Action[], end?: boolean}} MenuModel */

let menus = 0;

/** @extends {Part<MenuModel>} */
class Menu extends Part {
  #open = false;
  #id = `menu-${(menus += 1)}`;
  #outside = (/** @type {Event} */ event) => {
    if (!this.contains(/** @type {Node} */ (event.target))) this.#set(false);
  };

  disconnectedCallback() {
    document.removeEventListener("click", this.#outside, true);
  }

  /** @param {MenuModel} model */
  view({label, text, actions, end = false}) {
    return html`
      <button
        type="button" class="menu-button" aria-haspopup="menu" aria-expanded=${this.#open} aria-controls=${this.#id} aria-label=${label}
        @click=${() => this.#set(!this.#open)} @keydown=${(/** @type {KeyboardEvent} */ event) => this.#key(event)}
      >${text ?? icon("more")}${text ? icon("down") : nothing}</button>
      <div id=${this.#id} class="menu ${end ? "end" : ""}" role="menu" aria-label=${label} ?hidden=${!this.#open} data-keys
        @keydown=${(/** @type {KeyboardEvent} */ event) => this.#key(event)}>
        ${actions.map((action, number) => this.#item(action, `${this.#id}-${number}`))}
      </div>
    `;
  }

  /**
   * An action. One that is refused can be reached by keys too, and is described by the reason.
   * @param {Action} action
   * @param {string} id
   */
  #item(action, id) {
    const {text, refused = null, danger = false} = action;
    return html`
      <button type="button" role="menuitem" tabindex="-1" class=${danger ? "danger-text" : ""} aria-disabled=${refused ? "true" : "false"}
        aria-labelledby=${id} aria-describedby=${refused ? `${id}-why` : nothing} @click=${() => this.#act(action)}>
        <span id=${id}>${text}</span>${refused ? html`<span class="small" id="${id}-why">${refused}</span>` : nothing}
      </button>
    `;
  }

  /** @param {Action} action */
  #act(action) {
    if (action.refused) return;
    this.#set(false);
    action.act();
  }

  /** @param {boolean} open */
  #set(open) {
    if (open === this.#open) return;
    this.#open = open;
    if (open) document.addEventListener("click", this.#outside, true);
    else document.removeEventListener("click", this.#outside, true);
    this.changed();
    queueMicrotask(() => (open ? this.#items[0] : this.querySelector("button"))?.focus());
  }

  /** @returns {HTMLElement[]} */
  get #items() {
    return [...this.querySelectorAll("[role=menuitem]")].map(each => /** @type {HTMLElement} */ (each));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const items = this.#items;
    const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    if (event.key === "Escape" && this.#open) this.#set(false);
    else if (event.key === "Tab" && this.#open) return this.#set(false);
    else if (event.key === "ArrowDown" && !this.#open) this.#set(true);
    else if (event.key === "ArrowDown") items[(at + 1) % items.length]?.focus();
    else if (event.key === "ArrowUp" && this.#open) items[(at - 1 + items.length) % items.length]?.focus();
    else if (event.key === "Home" && this.#open) items[0]?.focus();
    else if (event.key === "End" && this.#open) items.at(-1)?.focus();
    else return undefined;
    event.preventDefault();
    event.stopPropagation();
    return undefined;
  }
}
customElements.define("nb-menu", Menu);
