/** The operations: what was asked of the platform, and how far it is. */

import {first} from "../core/first.js";
import {html, nothing} from "../core/html.js";
import {ago, counted, duration, words} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {empty, operationBadge} from "../parts/badge.js";
import "../parts/table.js";

/** How many are read at first, and more with each click. */
const STEP = 100;
const STATES = ["accepted", "running", "succeeded", "failed", "timed_out", "cancelled"];
const KINDS = ["vm", "image"];

/** @typedef {{operations: Operation[], more: boolean, most: number}} Operations */

/** @type {import("../parts/table.js").Column<Operation>[]} */
const COLUMNS = [
  {name: "verb", title: "What", card: true, view: row => link("/operations/:operation", {operation: row.id}, words(row.verb))},
  {name: "status", title: "State", card: true, view: row => operationBadge(row.status)},
  {name: "resource", title: "Resource", card: true, view: row => html`${words(row.kind)} ${linkTo(row.kind, row.project, row.resource)}`},
  {name: "project", title: "Project", view: row => linkTo("project", null, row.project)},
  {name: "actor", title: "By whom", view: row => row.actor},
  {name: "accepted", title: "Accepted", view: row => html`<span title=${row.accepted_at}>${ago(row.accepted_at)}</span>`},
  {name: "took", title: "Took", align: "end", view: row => (row.ended_at ? duration(Date.parse(row.ended_at) - Date.parse(row.accepted_at)) : "–")},
  {name: "problem", title: "Problem", view: row => row.problem?.detail ?? ""},
];

/** @type {Page<Operations>} */
export const page = {
  reads: true,

  async load(context, before) {
    const {project, vm, kind, status} = context.query;
    const most = before?.most ?? STEP;
    /** @type {{items: Operation[], more: boolean}} */
    const {items, more} = await first(context, "/v1/operations", {project, vm, kind, status}, most);
    return {operations: items, more, most};
  },

  live({operation}, context) {
    if (operation !== null) context.refresh();
  },

  view(context, data) {
    const {query, ask, go} = context;
    const {operations, more} = data;
    const choice = (/** @type {string} */ name, /** @type {string} */ label, /** @type {string[]} */ options) => html`
      <label><span class="unseen">${label}</span>
        <select name=${name} @change=${(/** @type {Event} */ event) => ask({[name]: /** @type {HTMLSelectElement} */ (event.target).value})}>
          <option value="">${label}: all</option>
          ${options.map(option => html`<option value=${option} ?selected=${query[name] === option}>${words(option)}</option>`)}
        </select></label>
    `;
    const text = (/** @type {string} */ name, /** @type {string} */ label) => html`
      <label><span class="unseen">${label}</span><input type="text" name=${name} placeholder=${label} autocomplete="off" spellcheck="false" .value=${query[name] ?? ""}
        @change=${(/** @type {Event} */ event) => ask({[name]: /** @type {HTMLInputElement} */ (event.target).value.trim() || null})}></label>
    `;
    return html`
      <header class="page-head">
        <h1>Operations</h1>
        <span class="count" role="status">${counted(operations.length, "operation")}${more ? ", and more" : ""}</span>
      </header>
      <div class="filters" role="search">${choice("status", "State", STATES)} ${choice("kind", "Kind", KINDS)} ${text("project", "Project")} ${text("vm", "Id of a VM")}</div>
      <nb-table .model=${{
        label: "Operations",
        columns: COLUMNS,
        rows: operations,
        id: (/** @type {Operation} */ row) => row.id,
        name: (/** @type {Operation} */ row) => `${row.verb} ${row.resource}`,
        onopen: (/** @type {Operation} */ row) => go("/operations/:operation", {operation: row.id}),
        empty: empty("No operations", html`None fits. ${link("/operations", {}, "Show all")}`),
      }}></nb-table>
      ${more
        ? html`<p><button @click=${() => {
            data.most += STEP;
            context.refresh();
          }}>Show more</button></p>`
        : nothing}
    `;
  },
};
