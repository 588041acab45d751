/** The newest events as they come. What somebody reads does not move: the list waits while it is pointed at, has the focus, or is paused. */

import {html, nothing} from "../core/html.js";
import {counted} from "../core/format.js";
import {link} from "../core/links.js";
import {timeline} from "../parts/timeline.js";

/** @typedef {import("../parts/timeline.js").Item} Item */

export class Flow {
  /** Those that are shown, the newest first. @type {Item[]} */ items = [];
  /** Those that wait, the newest first. @type {Item[]} */ #waiting = [];
  #count = 0;
  paused = false;
  #read = false;

  /** @param {number} most how many are shown */
  constructor(most) {
    this.most = most;
  }

  /** The position of the newest event that is known. */
  get newest() {
    return this.#waiting[0]?.position ?? this.items[0]?.position ?? 0;
  }

  /**
   * The newest events, as they were read.
   * @param {Item[]} items the newest first
   */
  take(items) {
    const seen = this.items[0]?.position ?? 0;
    const read = items[0]?.position ?? 0;
    const later = (/** @type {Item[]} */ those) => those.filter(({position}) => position > read);
    if (!this.#holds || seen === 0) {
      // What has come since the reading began stays.
      this.items = [...later(this.#waiting), ...later(this.items), ...items].slice(0, this.most);
      this.#waiting = [];
      this.#count = 0;
      return;
    }
    const known = this.newest;
    const words = new Map(items.map(item => [item.position, item]));
    this.items = this.items.map(item => words.get(item.position) ?? item);
    this.#count += items.filter(({position}) => position > known).length;
    this.#waiting = [...later(this.#waiting), ...items.filter(({position}) => position > seen)].slice(0, this.most);
  }

  /** @param {Item} item a new event */
  add(item) {
    if (item.position <= this.newest) return;
    if (this.#holds) {
      this.#waiting = [item, ...this.#waiting].slice(0, this.most);
      this.#count += 1;
    } else this.items = [item, ...this.items].slice(0, this.most);
  }

  get #holds() {
    return this.paused || this.#read;
  }

  /** Show what waits. */
  #go() {
    if (this.#holds) return;
    this.items = [...this.#waiting, ...this.items].slice(0, this.most);
    this.#waiting = [];
    this.#count = 0;
  }

  /**
   * @param {{changed: () => void, subject: (item: Item) => unknown, go: (position: number) => void, past: boolean}} how
   */
  view({changed, subject, go, past}) {
    const read = (/** @type {boolean} */ reads) => () => {
      this.#read = reads;
      this.#go();
      changed();
    };
    const pause = () => {
      this.paused = !this.paused;
      this.#go();
      changed();
    };
    const left = (/** @type {FocusEvent} */ event) => {
      const list = /** @type {HTMLElement} */ (event.currentTarget);
      if (!list.contains(/** @type {Node | null} */ (event.relatedTarget)) && !list.matches(":hover")) read(false)();
    };
    const away = (/** @type {PointerEvent} */ event) => {
      if (!(/** @type {HTMLElement} */ (event.currentTarget).contains(document.activeElement))) read(false)();
    };
    return html`
      <section class="card wide" aria-labelledby="log">
        <div class="card-head">
          <h2 id="log">The log${past ? ", up to this moment" : ", as it grows"}</h2>
          <span class="small" role="status">${this.#count > 0 ? `${counted(this.#count, "new event")} ${this.#count === 1 ? "waits" : "wait"}` : ""}</span>
          ${past ? nothing : html`<button aria-pressed=${this.paused} @click=${pause}>Pause</button>`}
        </div>
        ${this.items.length === 0
          ? html`<p class="small">Nothing has happened yet.</p>`
          : html`<div @pointerenter=${read(true)} @pointerleave=${away} @focusin=${read(true)} @focusout=${left}>${timeline(this.items, {subject, go})}</div>`}
        <p class="small">${link("/log", {}, "Search the log")}</p>
      </section>
    `;
  }
}
