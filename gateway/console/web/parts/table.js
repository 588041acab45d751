/**
 * `<nb-table .model=${…}>`: a table that draws only the rows that are seen, so that 10,000 are as quick as ten. Rows are
 * sorted by a click on a column's head, selected by their boxes (Shift for a range), and moved through by keys. On a phone
 * each row is a card of the columns that say `card`.
 */

import {current, html, nothing, Part, ref} from "../core/html.js";
import {counted} from "../core/format.js";
import {drawn, look, scrolled, selection, sorted} from "./table-model.js";

/**
 * @template R
 * @typedef {object} Column
 * @property {string} name
 * @property {string} title
 * @property {(row: R) => unknown} view a template, or text
 * @property {(row: R) => unknown} [by] the value that it is sorted by; without it, the column cannot be sorted by
 * @property {"end"} [align]
 * @property {boolean} [card] also on a phone
 * @property {"phone"} [only] where it is shown, if not everywhere
 */
/**
 * @template R
 * @typedef {object} TableModel
 * @property {string} label what the table is, for those who do not see it
 * @property {Column<R>[]} columns the first one is the head of its row
 * @property {readonly R[]} rows
 * @property {(row: R) => string} id
 * @property {(row: R) => string} name what a row is called
 * @property {ReadonlySet<string>} [selected] the ids of selected rows; without it, rows cannot be selected
 * @property {(selected: Set<string>) => void} [onselect]
 * @property {(row: R) => void} [onopen]
 * @property {Sort} [sort] the order; without it, the table keeps its own
 * @property {(sort: Sort) => void} [onsort]
 * @property {(ids: string[]) => void} [ondrawn] which rows are drawn
 * @property {unknown} [empty] what is shown when there are no rows
 */

/** @typedef {{name: string | null, descending: boolean}} Sort `name`: of a column; null: the order of the rows */

const ROW = 44;
const CARD = 92;
let tables = 0;

/**
 * @template R
 * @extends {Part<TableModel<R>>}
 */
export class Table extends Part {
  #sort = /** @type {Sort} */ ({name: null, descending: false});
  /** @type {R[]} */ #rows = [];
  #at = 0;
  /** @type {string | null} */ #anchor = null;
  /** @type {HTMLElement | null} */ #box = null;
  #top = 0;
  #height = 600;
  #planned = false;
  #number = (tables += 1);
  #phone = window.matchMedia("(max-width: 700px)");
  #resized = new ResizeObserver(() => this.#scrolled());

  connectedCallback() {
    super.connectedCallback();
    this.#phone.onchange = () => this.changed();
  }

  disconnectedCallback() {
    this.#resized.disconnect();
  }

  get #step() {
    return this.#phone.matches ? CARD : ROW;
  }

  /**
   * @param {TableModel<R>} model
   * @param {TableModel<R>} [before]
   */
  given(model, before) {
    const {name, descending} = model.sort ?? this.#sort;
    const same = before?.rows === model.rows && name === this.#sort.name && descending === this.#sort.descending;
    this.#sort = {name, descending};
    if (!same) this.#order(model);
  }

  /** @param {TableModel<R>} model */
  #order(model) {
    const {name, descending} = this.#sort;
    const by = model.columns.find(each => each.name === name)?.by ?? null;
    this.#rows = name === null || by === null ? [...model.rows] : sorted(model.rows, by, descending);
    this.#at = Math.max(0, Math.min(this.#at, this.#rows.length - 1));
  }

  /** The row that keys are about. @returns {R | undefined} */
  get row() {
    return this.#rows[this.#at];
  }

  /**
   * Move by a number of rows, as arrow keys do. The first time, only to the table.
   * @param {number} by
   */
  step(by) {
    if (this.#box?.contains(document.activeElement)) this.#move(by, false);
    else this.#box?.focus({preventScroll: true});
  }

  /** Select the row that keys are about, or no longer. */
  pick() {
    if (this.row !== undefined) this.#pick(this.model.id(this.row), false);
  }

  /**
   * Elements of rows are used again for other rows: to make new ones takes longer than a frame.
   * @param {TableModel<R>} model
   */
  view(model) {
    const {columns, selected} = model;
    const {from, to} = drawn(this.#top, this.#height, this.#step, this.#rows.length);
    const span = columns.length + (selected ? 1 : 0);
    const seen = this.#rows.slice(from, to);
    model.ondrawn?.(seen.map(model.id));
    return html`
      <div
        class="table-box" role="region" aria-label=${model.label} tabindex="0"
        aria-describedby="table-help-${this.#number}"
        ${ref(box => this.#boxed(/** @type {HTMLElement | undefined} */ (box)))}
        @scroll=${() => this.#scrolled()} @keydown=${(/** @type {KeyboardEvent} */ event) => this.#key(event)}
      >
        <table class="table" aria-rowcount=${this.#rows.length + 1}>
          <thead>
            <tr aria-rowindex="1">
              ${selected ? html`<th class="pick">${this.#pickAll(model)}</th>` : nothing}
              ${columns.map(column => this.#head(column))}
            </tr>
          </thead>
          <tbody>
            <tr class="space" aria-hidden="true"><td colspan=${span} ${ref(high(from * this.#step))}></td></tr>
            ${seen.map((row, at) => this.#row(model, row, from + at))}
            <tr class="space" aria-hidden="true">
              <td colspan=${span} ${ref(high((this.#rows.length - to) * this.#step))}></td>
            </tr>
          </tbody>
        </table>
        ${this.#rows.length === 0 ? html`<div class="table-empty">${model.empty ?? "Nothing here."}</div>` : nothing}
      </div>
      <p class="unseen" id="table-help-${this.#number}">
        ${counted(this.#rows.length, "row")}. Arrow keys move, Enter opens${selected ? ", Space selects" : ""}.
      </p>
    `;
  }

  /** @param {Column<R>} column */
  #head(column) {
    const on = this.#sort.name === column.name;
    const order = on ? (this.#sort.descending ? "descending" : "ascending") : "none";
    if (!column.by) return html`<th scope="col" class=${look(column)}>${column.title}</th>`;
    return html`
      <th scope="col" class=${look(column)} aria-sort=${order}>
        <button class="sort" @click=${() => this.#sortBy(column.name)}>${column.title}<span aria-hidden="true"></span></button>
      </th>
    `;
  }

  /** @param {TableModel<R>} model */
  #pickAll(model) {
    const {selected} = model;
    const all = this.#rows.length > 0 && (selected?.size ?? 0) >= this.#rows.length && this.#rows.every(row => selected?.has(model.id(row)));
    const pick = () => model.onselect?.(all ? new Set() : new Set(this.#rows.map(model.id)));
    return html`<input type="checkbox" aria-label="Select all rows" .checked=${current(all)} @change=${pick}>`;
  }

  /**
   * @param {TableModel<R>} model
   * @param {R} row
   * @param {number} at
   */
  #row(model, row, at) {
    const id = model.id(row);
    const picked = model.selected?.has(id) ?? false;
    const here = at === this.#at ? "here" : "";
    const [first, ...others] = model.columns;
    return html`
      <tr
        class="row ${here} ${picked ? "picked" : ""}" aria-rowindex=${at + 2} data-id=${id}
        aria-selected=${model.selected ? String(picked) : nothing}
        @click=${(/** @type {MouseEvent} */ event) => this.#clicked(event, row, at)}
      >
        ${model.selected
          ? html`<td class="pick"><input type="checkbox" tabindex="-1" aria-label="Select ${model.name(row)}" .checked=${current(picked)}></td>`
          : nothing}
        ${first ? html`<th scope="row" class=${look(first)}>${first.view(row)}</th>` : nothing}
        ${others.map(column => html`<td class=${look(column)} data-title=${column.title}>${column.view(row)}</td>`)}
      </tr>
    `;
  }

  /**
   * @param {MouseEvent} event
   * @param {R} row
   * @param {number} at
   */
  #clicked(event, row, at) {
    const target = /** @type {Element} */ (event.target);
    this.#at = at;
    if (target.closest(".pick") && this.model.selected) {
      if (!(target instanceof HTMLInputElement)) event.preventDefault();
      this.#pick(this.model.id(row), event.shiftKey);
    } else if (!target.closest("a, button, input") && getSelection()?.isCollapsed !== false) {
      this.model.onopen?.(row);
    }
    this.changed();
  }

  /**
   * @param {string} id
   * @param {boolean} range
   */
  #pick(id, range) {
    const {selected, onselect} = this.model;
    if (!selected || !onselect) return;
    onselect(selection(selected, this.#rows.map(this.model.id), id, range ? this.#anchor : null));
    this.#anchor = id;
  }

  /** @param {string} name */
  #sortBy(name) {
    const {name: before, descending} = this.#sort;
    const sort = before !== name ? {name, descending: false} : descending ? {name: null, descending: false} : {name, descending: true};
    if (this.model.onsort) return this.model.onsort(sort);
    this.#sort = sort;
    this.#order(this.model);
    return this.changed();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.target !== this.#box && /** @type {Element} */ (event.target).closest("a, button, select")) return;
    const page = Math.max(1, Math.floor(this.#height / this.#step) - 1);
    /** @type {Record<string, number>} */
    const moves = {ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.#rows.length, End: this.#rows.length};
    const move = moves[event.key];
    const row = this.#rows[this.#at];
    if (move !== undefined) this.#move(move, event.shiftKey);
    else if (event.key === "Enter" && row) this.model.onopen?.(row);
    else if (event.key === " " && row) this.#pick(this.model.id(row), event.shiftKey);
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.model.onselect?.(new Set(this.#rows.map(this.model.id)));
    else if (event.key === "Escape" && this.model.selected?.size) this.model.onselect?.(new Set());
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /**
   * @param {number} by
   * @param {boolean} picking
   */
  #move(by, picking) {
    const row = this.#rows[this.#at];
    if (picking && row && this.#anchor === null) this.#pick(this.model.id(row), false);
    this.#at = Math.max(0, Math.min(this.#rows.length - 1, this.#at + by));
    const next = this.#rows[this.#at];
    if (picking && next) this.#pick(this.model.id(next), true);
    if (!picking) this.#anchor = null;
    const head = this.#box?.querySelector("thead")?.clientHeight ?? 0;
    if (this.#box) this.#box.scrollTop = scrolled(this.#at, this.#box.scrollTop, this.#box.clientHeight - head, this.#step);
    this.changed();
  }

  /** @param {HTMLElement | undefined} box */
  #boxed(box) {
    if (!box || box === this.#box) return;
    this.#resized.disconnect();
    this.#resized.observe(box);
    this.#box = box;
  }

  #scrolled() {
    if (this.#planned) return;
    this.#planned = true;
    requestAnimationFrame(() => {
      this.#planned = false;
      if (!this.#box) return;
      this.#top = this.#box.scrollTop;
      this.#height = this.#box.clientHeight;
      this.changed();
    });
  }
}
customElements.define("nb-table", Table);

/**
 * Sets the height of an element: the page has no styles in attributes.
 * @param {number} pixels
 */
const high = pixels => (/** @type {Element | undefined} */ element) => {
  if (element instanceof HTMLElement) element.style.height = `${pixels}px`;
};
