/** `<nb-usage .model=${…}>`: what a VM used lately, as charts, and as a table for those who do not see them. */

import {html, nothing, Part, repeat} from "../core/html.js";
import {aborted} from "../core/api.js";
import {bytes, clock, moment} from "../core/format.js";
import {asProblem} from "../core/problem.js";
import {refusal} from "../parts/badge.js";
import {charts, HOURS} from "./vm-series.js";

/** @typedef {{api: import("../core/api.js").Api, path: string}} UsageModel `path`: of the VM in the API */
/** @typedef {import("../islands/chart-uplot.js").Chart} Chart */

/** Milliseconds between two readings: the node takes a sample each 30 s. */
const PACE = 15_000;
/** The most rows of the table. */
const ROWS = 24;

/** @extends {Part<UsageModel>} */
class Usage extends Part {
  #since = "1h";
  /** @type {UsageSeriesView | null} */ #series = null;
  /** @type {import("../core/problem.js").Problem | null} */ #problem = null;
  /** @type {Map<string, Promise<Chart>>} */ #charts = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #alarm;
  #abort = new AbortController();

  /**
   * @param {UsageModel} model
   * @param {UsageModel | undefined} before
   */
  given(model, before) {
    if (before !== undefined && before.path !== model.path) this.#again();
  }

  connectedCallback() {
    super.connectedCallback();
    this.#again();
  }

  disconnectedCallback() {
    this.#abort.abort();
    clearTimeout(this.#alarm);
    for (const made of this.#charts.values()) void made.then(chart => chart.free(), () => {});
    this.#charts.clear();
  }

  /** Forget what is shown, and read. */
  #again() {
    this.#series = null;
    this.#abort.abort();
    this.#abort = new AbortController();
    void this.#read(this.#abort.signal);
  }

  /** @param {AbortSignal} signal */
  async #read(signal) {
    clearTimeout(this.#alarm);
    const {api, path} = this.model;
    try {
      this.#series = await api.get(`${path}/usage`, {since: this.#since, points: 240}, {signal});
      this.#problem = null;
    } catch (error) {
      if (aborted(error) || signal.aborted) return;
      this.#problem = asProblem(error);
    }
    if (signal.aborted) return;
    this.#alarm = setTimeout(() => void this.#read(signal), PACE);
    this.changed();
  }

  shown() {
    const series = this.#series;
    if (series === null) return;
    for (const each of charts(series)) {
      const host = this.querySelector(`[data-chart="${each.name}"]`);
      if (host instanceof HTMLElement) void this.#draw(host, each, series);
    }
  }

  /**
   * @param {HTMLElement} host
   * @param {import("./vm-series.js").Drawn} drawn
   * @param {UsageSeriesView} series
   */
  async #draw(host, drawn, series) {
    try {
      const known = this.#charts.get(drawn.name);
      const made = known ?? import("../islands/chart-uplot.js").then(({chart}) => chart(host, drawn.lines, drawn.words));
      this.#charts.set(drawn.name, made);
      const times = series.points.map(({at}) => Date.parse(at) / 1000);
      (await made).show(times, drawn.lines, [Date.parse(series.from) / 1000, Date.parse(series.to) / 1000], drawn.most);
    } catch (error) {
      this.#problem = asProblem(error);
      this.changed();
    }
  }

  /** @param {string} since */
  #look(since) {
    this.#since = since;
    this.#again();
    this.changed();
  }

  view() {
    const series = this.#series;
    return html`
      <div class="filters" role="group" aria-label="How far back">
        ${HOURS.map(hours => html`
          <button type="button" aria-pressed=${this.#since === `${hours}h`} @click=${() => this.#look(`${hours}h`)}>${hours === 1 ? "1 hour" : `${hours} hours`}</button>
        `)}
      </div>
      ${this.#problem ? refusal(this.#problem) : nothing}
      ${series === null
        ? this.#problem ? nothing : html`<p class="small" aria-busy="true">Asking its node…</p>`
        : html`
            <div class="charts">
              ${repeat(charts(series), ({name}) => name, ({name, title, newest}) => html`
                <figure class="card"><figcaption><h2>${title}</h2><span class="small">${newest}</span></figcaption><div class="chart" data-chart=${name} aria-hidden="true"></div></figure>
              `)}
            </div>
            ${table(series)}
          `}
    `;
  }
}
customElements.define("nb-usage", Usage);

/**
 * The newest points, the newest first.
 * @param {UsageSeriesView} series
 */
const table = ({points, step_seconds: step}) => html`
  <details>
    <summary>As a table, in steps of ${Math.round(step)} s</summary>
    <div class="usage-table" tabindex="0" role="region" aria-label="Usage as a table">
      <table>
        <thead><tr><th scope="col">Until</th><th scope="col">CPUs</th><th scope="col">Memory</th><th scope="col">Disk read</th><th scope="col">Written</th><th scope="col">Net in</th><th scope="col">Out</th></tr></thead>
        <tbody>
          ${points.slice(-ROWS).toReversed().map(point => html`
            <tr>
              <th scope="row" title=${moment(point.at)}>${clock(point.at)}</th>
              <td>${point.cpu === null ? "–" : point.cpu.toFixed(2)}</td>
              ${[point.memory_bytes, point.disk_read, point.disk_written, point.net_in, point.net_out].map(value => html`<td>${bytes(value)}</td>`)}
            </tr>
          `)}
        </tbody>
      </table>
    </div>
  </details>
`;
