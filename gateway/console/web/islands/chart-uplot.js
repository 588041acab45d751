/** Charts with axes (uPlot). */

import uPlot from "../vendor/uplot/dist/uPlot.esm.js";
import {sheet} from "./sheet.js";

/** Pixels. */
const HEIGHT = 180;

/**
 * @typedef {object} Line
 * @property {string} label
 * @property {"accent" | "warn"} colour a custom property of the page
 * @property {(number | null)[]} values null is a gap
 */

/**
 * @typedef {object} Chart
 * @property {(times: number[], lines: Line[], range: [number, number], most: number | null) => void} show
 *   `times`: seconds since 1970. `most`: the value at the top; null for the greatest.
 * @property {() => void} free
 */

/**
 * Draw a chart in an element.
 * @param {HTMLElement} host
 * @param {Pick<Line, "label" | "colour">[]} lines
 * @param {(value: number) => string} words of a value
 * @returns {Promise<Chart>}
 */
export async function chart(host, lines, words) {
  await sheet("uplot/dist/uPlot.min.css");
  const look = getComputedStyle(document.documentElement);
  // A canvas does not know `light-dark`: an element says which colour that is now.
  const probe = document.createElement("i");
  host.append(probe);
  const colour = (/** @type {string} */ name) => {
    probe.style.color = look.getPropertyValue(`--${name}`);
    return getComputedStyle(probe).color;
  };
  const quiet = colour("quiet");
  const grid = {stroke: colour("line"), width: 1};
  let range = /** @type {[number, number]} */ ([0, 1]);
  let top = /** @type {number | null} */ (null);
  const made = new uPlot(
    {
      width: Math.max(200, host.clientWidth),
      height: HEIGHT,
      cursor: {y: false},
      scales: {x: {range: () => range}, y: {range: (_, __, most) => [0, top ?? Math.max(most ?? 0, 1e-9) * 1.05]}},
      axes: [
        {stroke: quiet, grid, ticks: grid},
        {stroke: quiet, grid, ticks: grid, size: 84, values: (_, values) => values.map(words)},
      ],
      series: [
        {},
        ...lines.map(({label, colour: name}) => ({
          label,
          stroke: colour(name),
          width: 1.5,
          spanGaps: false,
          points: {show: false},
          value: (/** @type {unknown} */ _, /** @type {number | null} */ value) => (value === null ? "–" : words(value)),
        })),
      ],
    },
    [[], ...lines.map(() => [])],
    host,
  );
  probe.remove();
  const resized = new ResizeObserver(() => made.setSize({width: Math.max(200, host.clientWidth), height: HEIGHT}));
  resized.observe(host);
  return {
    show: (times, shown, over, most) => {
      range = over;
      top = most;
      made.setData([times, ...shown.map(({values}) => values)]);
    },
    free: () => {
      resized.disconnect();
      made.destroy();
    },
  };
}
