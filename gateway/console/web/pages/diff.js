/** What changed between two moments: each resource in words, with who did it and why. */

import {first} from "../core/first.js";
import {html, nothing} from "../core/html.js";
import {counted} from "../core/format.js";
import {Problem} from "../core/problem.js";
import {empty, refusal} from "../parts/badge.js";
import {diff} from "../parts/diff.js";

/** The most resources that are shown. */
const MOST = 500;
/** Minutes before now from which on changes are shown, if the address does not say. */
const USUAL = 60;
const KINDS = ["vm", "project", "image", "flavor", "node", "enrollment", "user", "service_account", "token", "tag"];
/** The filters with free text: their name in the address and in the API, their label, an example. */
const TEXTS = /** @type {const} */ ([
  ["from", "From", "an hour ago"],
  ["to", "To", "now"],
  ["project", "Project", "its id"],
  ["id", "Resource", "its id"],
]);

/** @typedef {{items: import("../parts/diff.js").DiffItem[], more: boolean, refused: Problem | null}} Changes */

/** @type {Page<Changes>} */
export const page = {
  reads: true,

  async load(context) {
    const {query, at} = context;
    const from = query["from"] ?? new Date(Date.now() - USUAL * 60000).toISOString();
    const wanted = {kind: query["kind"], project: query["project"], id: query["id"], from, to: query["to"] ?? at ?? undefined};
    try {
      const found = await first(context, "/v1/diff", wanted, MOST);
      return {items: /** @type {import("../parts/diff.js").DiffItem[]} */ (found.items), more: found.more, refused: null};
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 400) throw error;
      return {items: [], more: false, refused: error};
    }
  },

  live(_event, context) {
    if (context.at === null && !context.query["to"]) context.refresh();
  },

  view(context, {items, more, refused}) {
    const {query, ask, travel} = context;
    const set = (/** @type {string} */ name) => (/** @type {Event} */ event) => ask({[name]: /** @type {HTMLInputElement} */ (event.target).value.trim() || null});
    const show = (/** @type {string} */ name, /** @type {string} */ label) =>
      query[name] ? html`<button @click=${() => travel(query[name] ?? null)}>${label}</button>` : nothing;
    return html`
      <header class="page-head">
        <h1>What changed</h1>
        <span class="count" role="status">${items.length === 0 ? "" : `${counted(items.length, "resource")}${more ? ", and more" : ""}`}</span>
        <span class="grow"></span>
        ${show("from", "Show the platform before")} ${show("to", "Show the platform after")}
      </header>
      <div class="filters log-filters" role="search" aria-label="Changes">
        <label><span class="small">Kind</span>
          <select @change=${set("kind")}>
            <option value="">all</option>
            ${KINDS.map(kind => html`<option value=${kind} ?selected=${query["kind"] === kind}>${kind.replaceAll("_", " ")}</option>`)}
          </select></label>
        ${TEXTS.map(
          ([name, label, example]) => html`
            <label><span class="small">${label}</span>
              <input type="text" name=${name} placeholder=${example} autocomplete="off" spellcheck="false" .value=${query[name] ?? ""} @change=${set(name)}></label>
          `,
        )}
      </div>
      <p class="small">A moment is a position of the log, or a time such as 2026-01-31T12:00:00Z. Changes after the first and until the second are shown.</p>
      ${refused ? refusal(refused, html`<ul>${refused.errors.map(({field, detail}) => html`<li><code>${field}</code>: ${detail}</li>`)}</ul>`) : nothing}
      <section class="card" aria-label="Changes">
        ${items.length === 0 ? empty("No changes", refused ? "The search is not possible in this way." : "Nothing happened to what you may see between these moments.") : diff(items)}
      </section>
      ${more ? html`<p class="small">Only the first ${MOST} are shown.</p>` : nothing}
    `;
  },
};
