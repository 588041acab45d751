/** One event: whole, as the log has it; whether the chain of digests proves it; what it changed. */

import {TRAVELS} from "../core/calls.js";
import {html, nothing} from "../core/html.js";
import {moment, words} from "../core/format.js";
import {link, linkTo, pathOf} from "../core/links.js";
import {unless} from "../core/problem.js";
import {badge, facts} from "../parts/badge.js";
import {by, itemOf} from "../parts/timeline.js";
import {tree} from "../parts/tree.js";

/** @typedef {Record<string, unknown>} Fields */
/** @typedef {CloudEvent & {chain: ChainView, digest: string, id: string, source: string}} Whole */
/**
 * @typedef {object} One
 * @property {Whole} event
 * @property {Fields | null} before of its resource; null: there was none
 * @property {Fields | null} after
 */

/** Fields that change with every event. */
const ALWAYS = new Set(["version", "position", "updated_at"]);

/** @type {Page<One>} */
export const page = {
  title: ({params}) => `Event ${params["position"]}`,

  async load({api, params, signal}) {
    const event = /** @type {Whole} */ (await api.get(`/v1/events/${encodeURIComponent(params["position"] ?? "")}`, {}, {signal, now: true}));
    const {kind, project, id, position} = itemOf(event);
    const path = pathOf(kind, project, id);
    const known = path !== null && TRAVELS.some(each => each.test(path));
    const as = (/** @type {number} */ at) => (known && path && at > 0 ? unless(/** @type {Promise<Fields>} */ (api.get(path, {at}, {signal, now: true}))) : null);
    const [before, after] = await Promise.all([as(position - 1), as(position)]);
    return {event, before, after};
  },

  live({position, kind, id}, context, {event}) {
    const item = itemOf(event);
    if (position > event.position && event.chain.following === null && kind === item.kind && id === item.id) context.refresh();
  },

  view(context, {event, before, after}) {
    const item = itemOf(event);
    const {kind, project, id, position} = item;
    return html`
      <nav class="crumbs" aria-label="Path">${link("/log", {}, "Log")}</nav>
      <header class="page-head">
        <h1>${event.words ?? words(item.type)}</h1>
        <span class="small">position ${position}</span>
        <span class="grow"></span>
        ${position > 1 ? link("/log/:position", {position: String(position - 1)}, "Previous") : nothing}
        ${link("/log/:position", {position: String(position + 1)}, "Next")}
        <button @click=${() => context.travel(String(position))}>Show the platform at this moment</button>
      </header>
      <div class="cards">
        <section class="card" aria-labelledby="event"><h2 id="event">What happened</h2>
          ${facts([
            ["Type", html`<code>${item.type}</code>`],
            ["Why", event.why ?? by(item.actor)],
            ["By whom", link("/log", {}, item.actor, {actor: item.actor})],
            ["When", moment(item.time)],
            ["Resource", html`${words(kind)} ${linkTo(kind, project, id, id, {at: String(position)})}`],
            ["Everything about it", link("/log", {}, "its events", {kind, id})],
            event.operationid ? ["Operation", link("/operations/:operation", {operation: event.operationid}, html`<code>${event.operationid}</code>`)] : null,
            event.requestid ? ["Request", link("/log", {}, html`<code>${event.requestid}</code>`, {request: event.requestid})] : null,
          ])}
        </section>
        <section class="card" aria-labelledby="chain"><h2 id="chain">Its proof</h2>${proof(event)}</section>
        ${before || after ? html`<section class="card wide" aria-labelledby="changed"><h2 id="changed">What it changed</h2>${changes(before, after)}</section>` : nothing}
        <section class="card wide" aria-labelledby="data"><h2 id="data">The whole event</h2>
          ${tree(Object.fromEntries(Object.entries(event).filter(([name]) => name !== "chain" && name !== "words" && name !== "why")))}
        </section>
      </div>
    `;
  },
};

/** @param {Whole} event */
function proof({chain, position, digest}) {
  const {valid, fault, mac, previous, linked, following, confirmed, checkpoint} = chain;
  const wrong = !valid || mac === "wrong" || mac === "missing" || (previous !== null && !linked) || confirmed === false || checkpoint?.signed === false || checkpoint?.matches === false;
  const one = (/** @type {string} */ label, /** @type {LinkView | null} */ part) => html`
    <li><span>${label}</span> ${part ? html`${link("/log/:position", {position: String(part.position)}, `position ${part.position}`)} <code class="break">${part.digest.slice(0, 16)}…</code>` : html`<span class="small">none</span>`}</li>
  `;
  return html`
    <p>${badge(wrong ? "failed" : "ok", wrong ? "bad" : "good")} ${wrong ? "The log does not prove this event." : "The log proves this event."}</p>
    <ol class="chain" aria-label="The chain of its resource">
      ${one("Previous", previous)}
      <li class="this"><span>This</span> position ${position} <code class="break">${digest.slice(0, 16)}…</code></li>
      ${one("Next", following)}
    </ol>
    <ul class="plain-list small">
      <li>${valid ? "It may follow the previous event of its resource." : `It may not follow the previous event of its resource: ${fault?.reason ?? fault?.code ?? ""}`}</li>
      <li>${previous === null ? "It is the first event of its resource." : linked ? "It names the digest of the previous event." : "It does not name the digest of the previous event."}</li>
      <li>${confirmed === null ? "There is no next event yet that confirms it." : confirmed ? "The next event names its digest." : "The next event names another digest."}</li>
      <li>${mac === "right" ? "Its author's code (MAC) is right." : mac === "not_needed" ? "It is older than the keys of authors, so it needs no code." : `Its author's code (MAC) is ${mac}.`}</li>
      <li>${sealed(checkpoint)}</li>
    </ul>
    <details><summary>Its digest</summary><code class="break">${digest}</code></details>
  `;
}

/** @param {ChainView["checkpoint"]} checkpoint */
function sealed(checkpoint) {
  if (checkpoint === null) return "No signed checkpoint covers it yet.";
  const {position, time, signed, matches} = checkpoint;
  const signature = signed === null ? "this gateway does not have the key to check its signature" : signed ? "its signature is right" : "its signature is wrong";
  const content = matches === null ? "too many messages to count here" : matches ? "it matches the log" : "it does not match the log";
  return `The checkpoint at position ${position} (${moment(time)}) covers it: ${signature}, ${content}.`;
}

/**
 * @param {Fields | null} before
 * @param {Fields | null} after
 */
function changes(before, after) {
  const names = [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])];
  const changed = names.filter(name => !ALWAYS.has(name) && JSON.stringify(before?.[name]) !== JSON.stringify(after?.[name]));
  if (changed.length === 0) return html`<p class="small">Nothing that is shown of it.</p>`;
  return html`
    ${before === null ? html`<p class="small">It did not exist before.</p>` : nothing}
    <ul class="plain-list">
      ${changed.map(name => html`<li><strong>${words(name)}</strong>: ${before === null ? nothing : html`<code>${short(before[name])}</code> → `}<code>${short(after?.[name])}</code></li>`)}
    </ul>
  `;
}

/** @param {unknown} value */
const short = value => (value === null || value === undefined ? "none" : typeof value === "string" ? value : JSON.stringify(value));
