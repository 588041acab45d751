/** A small line chart, as SVG: the shape of the last hours. Charts with axes are an island of their own. */

import {html, svg} from "../core/html.js";

/**
 * The path of a line through values; a value that is null is a gap. Pure.
 * @param {(number | null)[]} values
 * @param {number} width
 * @param {number} height
 * @param {number} most the value at the top
 */
export function path(values, width, height, most) {
  const step = values.length > 1 ? width / (values.length - 1) : 0;
  let pen = "M";
  const parts = [];
  for (const [at, value] of values.entries()) {
    if (value === null) {
      pen = "M";
      continue;
    }
    const y = most > 0 ? height - (Math.min(value, most) / most) * height : height;
    parts.push(`${pen}${(at * step).toFixed(1)},${y.toFixed(1)}`);
    pen = "L";
  }
  return parts.join("");
}

/**
 * @param {string} label what it shows, in words: also the newest value
 * @param {(number | null)[]} values
 * @param {number | null} most null: the greatest of them
 */
export function spark(label, values, most = null) {
  const top = most ?? Math.max(1e-9, ...values.filter(value => value !== null));
  return html`
    <svg class="spark" role="img" aria-label=${label} viewBox="0 0 120 32" preserveAspectRatio="none">
      ${svg`<path d=${path(values, 120, 30, top)} transform="translate(0,1)" vector-effect="non-scaling-stroke"></path>`}
    </svg>
  `;
}
