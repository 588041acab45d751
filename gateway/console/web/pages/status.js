/** The processes of the platform, as they report themselves each second. */

import {html, nothing} from "../core/html.js";
import {ago, counted} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {Problem} from "../core/problem.js";
import {badge} from "../parts/badge.js";

/** Milliseconds between two looks. */
const PACE = 1000;

/** @typedef {{status: StatusView, health: string}} Data */

/** @type {Page<Data>} */
export const page = {
  async load({api, signal, refresh}) {
    setTimeout(() => signal.aborted || refresh(), PACE);
    const [status, health] = await Promise.all([/** @type {Promise<StatusView>} */ (api.get("/v1/status", {}, {signal})), healthOf(api.get("/healthz", {}, {signal}))]);
    return {status, health};
  },

  view(_context, {status, health}) {
    const {roles, managers, leases, nodes, parked, position} = status;
    return html`
      <header class="page-head">
        <h1>Status</h1> ${badge(health)}
        <span class="small">${position === null ? "the log cannot be read" : `the log ends at position ${position}`}</span>
        <span class="grow"></span>
        ${link("/parked", {}, parked.open ? `${counted(parked.open, "message")} parked` : "No message is parked")}
      </header>
      <div class="cards">
        <section class="card wide" aria-labelledby="roles"><h2 id="roles">Processes</h2>
          ${table(["Role", "State", "Process", "Events behind", "Version", "Last error"], roles.map(row => [
            row.role,
            row.process === null ? badge("none", "bad") : badge(row.alive ? "works" : "silent", row.alive ? (row.failing_since ? "warn" : "good") : "bad"),
            row.process ? `${row.process.host}, ${row.process.pid}` : "–",
            row.lag ?? "–",
            row.version ?? "–",
            failing(row),
          ]))}
        </section>
        <section class="card wide" aria-labelledby="managers"><h2 id="managers">Managers</h2>
          ${table(["Manager", "State", "Last run", "Works on", "Waits to try again", "Last error"], managers.map(row => [
            row.name,
            row.process === null ? badge("nobody runs it", "bad") : badge(row.alive ? "works" : "silent", row.alive ? (row.failing_since ? "warn" : "good") : "bad"),
            ago(row.last_run),
            row.running,
            row.backing_off,
            html`${failing(row)}${row.items.length ? html` <span class="small">${row.items.join(", ")}</span>` : nothing}`,
          ]))}
        </section>
        <section class="card" aria-labelledby="leases"><h2 id="leases">Leases</h2>
          ${table(["Lease", "Held by"], leases.map(row => [row.name, row.process ? html`${row.process.host}, ${row.process.pid} ${row.alive ? nothing : badge("silent", "bad")}` : "nobody"]))}
        </section>
        <section class="card" aria-labelledby="nodes"><h2 id="nodes">Nodes</h2>
          ${table(["Node", "State", "Last seen", "Clock"], nodes.map(row => [linkTo("node", null, row.node), badge(row.alive ? (row.state ?? "alive") : "silent", row.alive ? null : "bad"), ago(row.last_seen), row.clock_warning ?? "right"]))}
        </section>
      </div>
    `;
  },
};

/** @param {{failing_since: string | null, last_error: string | null}} row */
const failing = ({failing_since: since, last_error: error}) => (since ? `${error ?? "it fails"} (since ${ago(since)})` : "");

/**
 * @param {string[]} heads
 * @param {unknown[][]} rows
 */
const table = (heads, rows) => html`
  <div class="scrolls" tabindex="0" role="group" aria-label=${heads[0]}>
    <table class="plain-table">
      <thead><tr>${heads.map(head => html`<th scope="col">${head}</th>`)}</tr></thead>
      <tbody>${rows.map(([first, ...others]) => html`<tr><th scope="row">${first}</th>${others.map(cell => html`<td>${cell}</td>`)}</tr>`)}</tbody>
    </table>
  </div>
`;

/**
 * The health in a word, also if the platform is not well: that answer is 503.
 * @param {Promise<HealthView>} answer
 */
async function healthOf(answer) {
  try {
    return (await answer).status;
  } catch (error) {
    if (error instanceof Problem && error.status === 503) return "unavailable";
    throw error;
  }
}
