/**
 * `<nb-slider .model=${…}>`: a line from the first event to now, with marks where much happened. Dragging travels, and so
 * do its keys: arrows by one event, with Shift from mark to mark, `Home` to the first event and `End` to now.
 */

import {html, nothing, Part, svg} from "../core/html.js";
import {clock, moment} from "../core/format.js";
import {markFrom, positionOf, wordsOf} from "./slider-model.js";

/** @typedef {import("../core/marks.js").Mark} Mark */
/**
 * @typedef {object} SliderModel
 * @property {number} end the newest position of the log
 * @property {string | null} at
 * @property {Mark[]} marks in their order; without any, it is a plain line
 * @property {(at: string | null) => void} go
 */

/** Milliseconds between two travels while the slider is dragged. */
const PACE = 150;

/** @extends {Part<SliderModel>} */
class Slider extends Part {
  /** Where it is dragged to; null while it is not. @type {number | null} */
  #dragged = null;
  #last = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #alarm;

  disconnectedCallback() {
    clearTimeout(this.#alarm);
  }

  /** @param {SliderModel} model */
  view({end, at, marks}) {
    const value = this.#dragged ?? positionOf(at, marks, end);
    const near = value >= end ? null : wordsOf(value, marks);
    const text = value >= end ? "now" : `position ${value}${near ? `, about ${moment(near.time)}` : ""}`;
    return html`
      <section class="slider" aria-label="Time">
        <span class="slider-end">${marks[0] ? clock(marks[0].time) : "first event"}</span>
        <div class="slider-line">
          ${this.#marks(marks, end)}
          <input type="range" min="1" max=${Math.max(1, end)} step="1" .value=${String(value)} aria-label="Moment that is shown" aria-valuetext=${near ? `${text}: ${near.events}` : text} title="Arrows: one event; with Shift: to the next mark; d: what changed since"
            @keydown=${(/** @type {KeyboardEvent} */ event) => this.#key(event, value)}
            @input=${(/** @type {Event} */ event) => this.#drag(Number(/** @type {HTMLInputElement} */ (event.target).value))}
            @change=${() => this.#drop()}>
        </div>
        <span class="slider-end last">${text}${near ? html`<br>${near.events} about then` : nothing}</span>
      </section>
    `;
  }

  /**
   * @param {Mark[]} marks
   * @param {number} end
   */
  #marks(marks, end) {
    if (marks.length === 0) return nothing;
    const most = Math.max(...marks.map(mark => mark.events));
    const x = (/** @type {number} */ position) => ((position - 1) / Math.max(1, end - 1)) * 1000;
    return html`
      <svg class="marks" viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">
        ${marks.map(({first, events, failures}) => {
          const height = 3 + 17 * Math.sqrt(events / most);
          return svg`<rect class=${failures > 0 ? "failed" : ""} x=${x(first)} y=${20 - height} width="3" height=${height}></rect>`;
        })}
      </svg>
    `;
  }

  /**
   * From mark to mark. The browser itself knows the other keys.
   * @param {KeyboardEvent} event
   * @param {number} value
   */
  #key(event, value) {
    const direction = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1}[event.key];
    if (!event.shiftKey || direction === undefined) return;
    event.preventDefault();
    this.#drag(markFrom(value, direction, this.model.marks, this.model.end));
    this.#drop();
  }

  /** @param {number} position */
  #drag(position) {
    this.#dragged = position;
    this.changed();
    clearTimeout(this.#alarm);
    const wait = Math.max(0, PACE - (Date.now() - this.#last));
    this.#alarm = setTimeout(() => this.#travel(), wait);
  }

  #drop() {
    clearTimeout(this.#alarm);
    this.#travel();
    this.#dragged = null;
  }

  #travel() {
    if (this.#dragged === null) return;
    this.#last = Date.now();
    this.model.go(this.#dragged >= this.model.end ? null : String(this.#dragged));
  }
}
customElements.define("nb-slider", Slider);
