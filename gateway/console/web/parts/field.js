/** One field of a form: its label, its input, its help, and what the platform says against its value. */

import {current, html, nothing} from "../core/html.js";
import {of} from "../core/problem.js";

/**
 * @typedef {object} Field
 * @property {string} name as the API names it
 * @property {string} label
 * @property {"text" | "number" | "password" | "area" | "select" | "check"} [type]
 * @property {string} [help]
 * @property {boolean} [required]
 * @property {string} [placeholder]
 * @property {number} [min]
 * @property {number} [max]
 * @property {number} [rows] of an area
 * @property {{value: string, text: string}[]} [options] of a select
 * @property {() => void} [changed] called after a change of a select
 * @property {string} [hint] a warning of the page itself, which does not prevent sending
 */

let numbers = 0;
/** @type {WeakMap<object, Map<string, string>>} */
const ids = new WeakMap();

/**
 * The id of a field in its form, for its label: the same with each rendering.
 * @param {object} form
 * @param {string} name
 */
function idOf(form, name) {
  const known = ids.get(form) ?? new Map();
  ids.set(form, known);
  const found = known.get(name) ?? `field-${(numbers += 1)}`;
  known.set(name, found);
  return found;
}

/**
 * @param {import("./form.js").Form} form
 * @param {Field} field
 */
export function field(form, field) {
  const errors = of(form.problem, field.name);
  const id = idOf(form, field.name);
  const notes = [field.help ? `${id}-help` : "", errors.length ? `${id}-error` : "", field.hint ? `${id}-hint` : ""];
  const input = inputOf(form, field, id, notes.join(" ").trim(), errors.length > 0);
  const label = html`<label class="field-label" for=${id}>${field.label}${field.required ? nothing : html` <span class="small">optional</span>`}</label>`;
  return html`
    <div class="field ${field.type === "check" ? "field-check" : ""}">
      ${field.type === "check" ? html`${input}<label for=${id}>${field.label}</label>` : html`${label}${input}`}
      ${errors.map(text => html`<p class="field-error" id="${id}-error">${text}</p>`)}
      ${field.hint ? html`<p class="field-hint" id="${id}-hint">${field.hint}</p>` : nothing}
      ${field.help ? html`<p class="field-help" id="${id}-help">${field.help}</p>` : nothing}
    </div>
  `;
}

/**
 * @param {import("./form.js").Form} form
 * @param {Field} field
 * @param {string} id
 * @param {string} notes the ids of what describes it
 * @param {boolean} wrong
 */
function inputOf(form, {name, type = "text", required = false, placeholder = "", min, max, rows = 4, options = [], changed}, id, notes, wrong) {
  const value = form.text(name);
  const set = (/** @type {Event} */ event) => form.set(name, /** @type {HTMLInputElement} */ (event.target).value);
  const described = notes || nothing;
  const invalid = wrong ? "true" : nothing;
  switch (type) {
    case "area":
      return html`<textarea id=${id} name=${name} rows=${rows} placeholder=${placeholder} ?required=${required} spellcheck="false"
        aria-describedby=${described} aria-invalid=${invalid} .value=${current(value)} @input=${set}></textarea>`;
    case "select":
      return html`<select id=${id} name=${name} ?required=${required} aria-describedby=${described} aria-invalid=${invalid} @change=${(/** @type {Event} */ event) => {
        set(event);
        changed?.();
      }}>
        ${options.map(option => html`<option value=${option.value} .selected=${current(option.value === value)}>${option.text}</option>`)}
      </select>`;
    case "check":
      return html`<input id=${id} name=${name} type="checkbox" aria-describedby=${described} .checked=${current(value === "true")}
        @change=${(/** @type {Event} */ event) => form.set(name, String(/** @type {HTMLInputElement} */ (event.target).checked))}>`;
    default:
      return html`<input id=${id} name=${name} type=${type} placeholder=${placeholder} ?required=${required} autocomplete="off" spellcheck="false"
        min=${min ?? nothing} max=${max ?? nothing} aria-describedby=${described} aria-invalid=${invalid} .value=${current(value)} @input=${set}>`;
  }
}
