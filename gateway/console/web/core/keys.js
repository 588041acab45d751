/** Keys: single ones while nobody types, and those with Ctrl (or Cmd) at any time. `?` lists them. */

/** @typedef {{key: string, words: string, act: (event: KeyboardEvent) => void}} Key `key`: such as `n`, `Ctrl+k`, `g v` */

/** Milliseconds between the two keys of a sequence. */
const PAUSE = 1200;

export class Keys {
  /** @type {Key[]} */ #always = [];
  #first = "";
  #pressed = 0;

  /** @param {() => Key[]} ofPage the keys of the page that is shown */
  constructor(ofPage) {
    this.ofPage = ofPage;
    document.addEventListener("keydown", event => this.#down(event));
  }

  /**
   * Keys that work on every page.
   * @param {Key[]} keys
   */
  add(keys) {
    this.#always.push(...keys);
  }

  /** @returns {Key[]} all keys that work now */
  get all() {
    return [...this.ofPage(), ...this.#always];
  }

  /** @param {KeyboardEvent} event */
  #down(event) {
    if (event.defaultPrevented || event.altKey || event.isComposing) return;
    const name = event.ctrlKey || event.metaKey ? `Ctrl+${event.key.toLowerCase()}` : event.key;
    if (!name.startsWith("Ctrl+") && (typing(event.target) || document.querySelector("dialog[open]"))) return;
    const sequence = Date.now() - this.#pressed < PAUSE ? `${this.#first} ${name}` : name;
    this.#first = name;
    this.#pressed = Date.now();
    const found = this.all.find(({key}) => key === sequence) ?? this.all.find(({key}) => key === name);
    if (!found) return;
    this.#pressed = 0;
    event.preventDefault();
    found.act(event);
  }
}

/**
 * Whether what has the focus takes keys for itself.
 * @param {EventTarget | null} target
 */
function typing(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button", "range"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement || target.isContentEditable || target.closest("[data-keys]") !== null;
}
