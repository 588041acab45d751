/** How the series of a VM becomes charts. Pure functions. */

import {bytes} from "../core/format.js";

/** How far back can be looked, in hours: the node keeps a day. */
export const HOURS = [1, 6, 24];

/**
 * @typedef {object} Drawn
 * @property {string} name
 * @property {string} title
 * @property {import("../islands/chart-uplot.js").Line[]} lines
 * @property {number | null} most the value at the top: all that it has; null for the greatest
 * @property {string} newest the newest values in words
 * @property {(value: number) => string} words
 */

const rate = (/** @type {number} */ value) => `${bytes(value)}/s`;
const cpus = (/** @type {number} */ value) => (value === 0 || value >= 10 ? String(Math.round(value)) : value.toFixed(2));

/**
 * @param {UsageSeriesView} series
 * @returns {Drawn[]}
 */
export function charts({points, size}) {
  const of = (/** @type {(point: UsagePoint) => number | null} */ read) => points.map(read);
  return [
    drawn("cpu", "CPU", [{label: "CPUs", colour: "accent", values: of(({cpu}) => cpu)}], size.cpus, cpus),
    drawn("memory", "Memory", [{label: "Memory", colour: "accent", values: of(point => point.memory_bytes)}], size.memory_bytes, bytes),
    drawn("disk", "Disk", [
      {label: "Read", colour: "accent", values: of(point => point.disk_read)},
      {label: "Written", colour: "warn", values: of(point => point.disk_written)},
    ], null, rate),
    drawn("network", "Network", [
      {label: "In", colour: "accent", values: of(point => point.net_in)},
      {label: "Out", colour: "warn", values: of(point => point.net_out)},
    ], null, rate),
  ];
}

/**
 * @param {string} name
 * @param {string} title
 * @param {Drawn["lines"]} lines
 * @param {number | null} size
 * @param {(value: number) => string} words
 * @returns {Drawn}
 */
function drawn(name, title, lines, size, words) {
  const greatest = Math.max(0, ...lines.flatMap(({values}) => values.filter(value => value !== null)));
  // What it takes on the host may be more than what it was given.
  const most = size === null ? null : Math.max(size, greatest);
  const said = lines.map(({label, values}) => {
    const last = values.at(-1) ?? null;
    return `${label} ${last === null ? "unknown" : words(last)}`;
  });
  return {name, title, lines, most, words, newest: `${said.join(", ")}${size === null ? "" : ` of ${words(size)}`}`};
}
