/** Filters of a list: a search in its text, and choices. They are in the address, so that a list can be shared. */

import {html, icon} from "../core/html.js";

/**
 * @typedef {object} Choice
 * @property {string} name of the value in the address
 * @property {string} label
 * @property {string[]} options
 */

/**
 * @param {Context} context
 * @param {string} label of the search
 * @param {Choice[]} choices
 */
export const filters = (context, label, choices) => html`
  <div class="filters" role="search">
    <label class="filter-search">${icon("search")}<span class="unseen">${label}</span>
      <input type="search" name="q" placeholder=${label} .value=${context.query["q"] ?? ""}
        @input=${(/** @type {Event} */ event) => context.ask({q: /** @type {HTMLInputElement} */ (event.target).value})}>
    </label>
    ${choices.map(
      ({name, label: title, options}) => html`
        <label><span class="unseen">${title}</span>
          <select name=${name} @change=${(/** @type {Event} */ event) => context.ask({[name]: /** @type {HTMLSelectElement} */ (event.target).value})}>
            <option value="">${title}: all</option>
            ${options.map(option => html`<option value=${option} ?selected=${context.query[name] === option}>${option}</option>`)}
          </select>
        </label>
      `,
    )}
  </div>
`;

/**
 * Whether a text has all words of a search, in any order and case. Pure.
 * @param {string} text
 * @param {string | undefined} search
 */
export function matches(text, search) {
  if (!search) return true;
  const lower = text.toLowerCase();
  return search.toLowerCase().split(/\s+/).every(word => lower.includes(word));
}

/**
 * The values that a list has, sorted, each once.
 * @template R
 * @param {readonly R[]} rows
 * @param {(row: R) => string | null} value
 */
export const values = (rows, value) => [...new Set(rows.map(value).filter(each => each !== null))].sort();
