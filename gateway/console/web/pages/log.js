/** The log: what happened, to what, by whom and why. Search is in the address; new events come on top. */

import {html, nothing} from "../core/html.js";
import {counted} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {Problem} from "../core/problem.js";
import {empty, refusal} from "../parts/badge.js";
import {itemOf, timeline} from "../parts/timeline.js";

/** How many events are read with each step. */
const STEP = 50;
/** Pixels that a page is scrolled, from which on new events do not move what is being read. */
const READING = 200;
const KINDS = ["vm", "project", "image", "flavor", "node", "enrollment", "user", "service_account", "token", "tag", "operation", "maintenance"];
/** Minutes of each choice of the time. */
const SPANS = /** @type {Record<string, string>} */ ({15: "last 15 minutes", 60: "last hour", 1440: "last day", 10080: "last week"});
/** The filters with free text: their name in the address and in the API, their label, an example. */
const TEXTS = /** @type {const} */ ([
  ["type", "Type", "VmStarted"],
  ["actor", "By whom", "user:ann"],
  ["id", "Resource", "its id"],
  ["project", "Project", "its id"],
  ["operation", "Operation", "its id"],
  ["request", "Request", "its id"],
  ["from", "From", "position or time"],
  ["to", "To", "position or time"],
]);

/**
 * @typedef {object} Log
 * @property {import("../parts/timeline.js").Item[]} items the newest first
 * @property {boolean} more whether there are earlier ones
 * @property {boolean} paused
 * @property {number} waiting events that came while it was paused
 * @property {Problem | null} refused why the search is not possible
 */

/** @type {Page<Log>} */
export const page = {
  reads: true,

  async load(context, before) {
    const paused = before?.paused ?? false;
    try {
      const {items, more} = await read(context);
      const last = items.at(-1)?.position ?? 0;
      const earlier = before && same(context, before) && items.some(({position}) => position <= (before.items[0]?.position ?? 0)) ? before.items.filter(({position}) => position < last) : [];
      return remember(context, {items: [...items, ...earlier], more: earlier.length > 0 ? (before?.more ?? more) : more, paused, waiting: 0, refused: null});
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 400) throw error;
      return remember(context, {items: [], more: false, paused, waiting: 0, refused: error});
    }
  },

  live(event, context, data) {
    const {query, at} = context;
    /** @type {Record<string, string>} */
    const wanted = {...query, type: query["type"]?.replace(/^.*\./, "") ?? ""};
    const fits = /** @type {const} */ (["kind", "type", "id", "project", "actor", "operation"]).every(name => !wanted[name] || wanted[name] === event[name]);
    if (at !== null || !fits || query["to"] || event.position <= (data.items[0]?.position ?? 0)) return;
    if (data.paused || (document.scrollingElement?.scrollTop ?? 0) > READING) {
      data.waiting += 1;
      context.changed();
    } else context.refresh();
  },

  view(context, data) {
    const {items, more, paused, waiting, refused} = data;
    const resume = () => {
      data.paused = false;
      document.scrollingElement?.scrollTo(0, 0);
      context.refresh();
    };
    return html`
      <header class="page-head">
        <h1>Log</h1>
        <span class="count" role="status">${items.length === 0 ? "" : `${counted(items.length, "event")}${more ? ", and earlier ones" : ""}`}</span>
        <span class="grow"></span>
        ${waiting > 0 ? html`<button class="primary" @click=${resume}>Show ${counted(waiting, "new event")}</button>` : nothing}
        ${context.at !== null
          ? html`<span class="small">Up to the moment that is shown.</span>`
          : html`<button aria-pressed=${paused} @click=${() => {
              if (paused) return resume();
              data.paused = true;
              return context.changed();
            }}>${paused ? "Continue" : "Pause"}</button>`}
      </header>
      ${search(context, items)}
      ${refused ? refusal(refused, html`<ul>${refused.errors.map(({field, detail}) => html`<li><code>${field}</code>: ${detail}</li>`)}</ul>`) : nothing}
      <section class="card">
        ${items.length === 0
          ? empty("No events", refused ? "The search is not possible in this way." : html`None fits. ${link("/log", {}, "Show all")}`)
          : timeline(items, {subject: about, go: position => context.go("/log/:position", {position: String(position)})})}
        ${more ? html`<button @click=${() => earlier(context, data)}>Show earlier events</button>` : nothing}
      </section>
    `;
  },
};

/** What was asked for, of each answer. @type {WeakMap<Log, string>} */
const asked = new WeakMap();

/** @param {Context} context @param {Log} data */
function remember({query, at}, data) {
  asked.set(data, JSON.stringify([query, at]));
  return data;
}

/** @param {Context} context @param {Log} data */
const same = ({query, at}, data) => asked.get(data) === JSON.stringify([query, at]);

/**
 * @param {Context} context
 * @param {number | null} before only events before this position
 */
async function read({api, query, at, signal}, before = null) {
  const wanted = Object.fromEntries(["kind", ...TEXTS.map(([name]) => name)].map(name => [name, query[name]]));
  const span = Number(query["since"] ?? "");
  const from = wanted["from"] ?? (span > 0 ? new Date(Date.now() - span * 60000).toISOString() : null);
  const to = before === null ? (at ?? wanted["to"]) : String(before - 1);
  /** @type {ListOf<CloudEvent>} */
  const found = await api.get("/v1/events", {...wanted, from, to, order: "desc", limit: STEP}, {signal, now: true});
  return {items: found.items.map(itemOf), more: found.next_page_token !== null};
}

/** @param {Context} context @param {Log} data */
async function earlier(context, data) {
  const last = data.items.at(-1)?.position ?? 1;
  if (last <= 1) return;
  const {items, more} = await read(context, last);
  data.items = [...data.items, ...items.filter(({position}) => position < last)];
  data.more = more;
  context.changed();
}

/** @param {import("../parts/timeline.js").Item} item */
const about = ({kind, project, id}) => html`${kind.replaceAll("_", " ")} ${linkTo(kind, project, id)}${kind === "vm" ? html` in ${linkTo("project", null, project)}` : nothing}`;

/**
 * @param {Context} context
 * @param {import("../parts/timeline.js").Item[]} items
 */
function search(context, items) {
  const {query, ask} = context;
  const types = [...new Set(items.map(({type}) => type))].sort();
  const set = (/** @type {string} */ name) => (/** @type {Event} */ event) => ask({[name]: /** @type {HTMLInputElement} */ (event.target).value.trim() || null});
  return html`
    <datalist id="log-types">${types.map(type => html`<option value=${type}></option>`)}</datalist>
    <div class="filters log-filters" role="search" aria-label="Events">
      <label><span class="small">Kind</span>
        <select @change=${set("kind")}>
          <option value="">all</option>
          ${KINDS.map(kind => html`<option value=${kind} ?selected=${query["kind"] === kind}>${kind.replaceAll("_", " ")}</option>`)}
        </select></label>
      <label><span class="small">When</span>
        <select @change=${set("since")}>
          <option value="">all</option>
          ${Object.entries(SPANS).map(([minutes, text]) => html`<option value=${minutes} ?selected=${query["since"] === minutes}>${text}</option>`)}
        </select></label>
      ${TEXTS.map(
        ([name, label, example]) => html`
          <label><span class="small">${label}</span>
            <input type="text" name=${name} placeholder=${example} list=${name === "type" ? "log-types" : nothing} autocomplete="off" spellcheck="false" .value=${query[name] ?? ""} @change=${set(name)}></label>
        `,
      )}
    </div>
  `;
}
