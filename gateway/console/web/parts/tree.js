/** A value of JSON as a tree of text. */

import {html} from "../core/html.js";

/**
 * Names and values; what is inside them, indented.
 * @param {unknown} value
 * @returns {unknown}
 */
export function tree(value) {
  if (value === null || typeof value !== "object") return html`<code class="break">${value === null ? "null" : JSON.stringify(value)}</code>`;
  const entries = Object.entries(value);
  if (entries.length === 0) return html`<code>${Array.isArray(value) ? "[]" : "{}"}</code>`;
  return html`<ul class="tree">${entries.map(([name, inside]) => html`<li><span class="tree-name">${name}</span> ${tree(inside)}</li>`)}</ul>`;
}
