/** Filters of a list: a search in its text, and choices. They are in the address, so that a list can be shared. */

import {current, html, icon, nothing} from "../core/html.js";

export {matches, values} from "./match.js";

/** @typedef {string | {value: string, text: string}} Option */
/**
 * @typedef {object} Choice
 * @property {string} name of the value in the address
 * @property {string} label
 * @property {readonly Option[]} options
 */

/** The most options of one choice. */
const MOST = 200;
/** Whether the choices are shown on a phone. */
let open = false;

/**
 * @param {Context} context
 * @param {string} label of the search
 * @param {Choice[]} choices
 */
export function filters(context, label, choices) {
  const {query} = context;
  const set = choices.filter(({name}) => query[name]);
  const toggle = () => {
    open = !open;
    context.changed();
  };
  return html`
    <div class="filters" role="search">
      <label class="filter-search">${icon("search")}<span class="unseen">${label}</span>
        <input type="search" name="q" placeholder=${label} .value=${query["q"] ?? ""}
          @input=${(/** @type {Event} */ event) => context.ask({q: /** @type {HTMLInputElement} */ (event.target).value})} @keydown=${entered}>
      </label>
      ${choices.length > 0
        ? html`<button type="button" class="only-phone" aria-expanded=${open} @click=${toggle}>Filters${set.length > 0 ? ` (${set.length})` : ""}</button>`
        : nothing}
      <div class="choices ${open ? "open" : ""}">${choices.map(choice => select(context, choice))}</div>
    </div>
    ${set.length === 0
      ? nothing
      : html`
          <ul class="chips" aria-label="Filters">
            ${set.map(choice => html`<li>${chip(context, choice)}</li>`)}
            ${set.length > 1
              ? html`<li><button type="button" class="link" @click=${() => context.ask(Object.fromEntries(set.map(({name}) => [name, null])))}>Remove all</button></li>`
              : nothing}
          </ul>
        `}
  `;
}

/** Enter ends typing: then keys are about the list. @param {KeyboardEvent} event */
function entered(event) {
  if (event.key === "Enter") /** @type {HTMLInputElement} */ (event.target).blur();
}

/** @param {Option} option */
const plain = option => (typeof option === "string" ? {value: option, text: option} : option);

/**
 * @param {Context} context
 * @param {Choice} choice
 */
function select(context, {name, label, options}) {
  const value = context.query[name] ?? "";
  const shown = options.slice(0, MOST).map(plain);
  if (value !== "" && !shown.some(option => option.value === value)) shown.push({value, text: value});
  return html`
    <label><span class="unseen">${label}</span>
      <select name=${name} @change=${(/** @type {Event} */ event) => context.ask({[name]: /** @type {HTMLSelectElement} */ (event.target).value})}>
        <option value="" .selected=${current(value === "")}>${label}: all</option>
        ${shown.map(option => html`<option value=${option.value} .selected=${current(option.value === value)}>${option.text}</option>`)}
      </select>
    </label>
  `;
}

/**
 * @param {Context} context
 * @param {Choice} choice
 */
function chip(context, {name, label, options}) {
  const value = context.query[name] ?? "";
  const text = options.map(plain).find(option => option.value === value)?.text ?? value;
  return html`
    <button type="button" class="chip" aria-label="Remove the filter ${label}: ${text}" @click=${() => context.ask({[name]: null})}>
      ${label}: ${text}${icon("close")}
    </button>
  `;
}
