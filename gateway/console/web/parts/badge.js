/** Small things that many pages show: a state, a meter, a pair of words, a message in place of content. */

import {html, icon, nothing, ref} from "../core/html.js";
import {words} from "../core/format.js";

/** How each state looks: good, busy, still, bad, warn. */
const LOOKS = /** @type {Record<string, string>} */ ({
  ...{running: "good", ready: "good", available: "good", succeeded: "good", ok: "good", active: "good"},
  ...{requested: "busy", scheduled: "busy", verifying: "busy", accepted: "busy"},
  ...{stopped: "still", suspended: "still", paused: "still", cancelled: "still", deleted: "still", disabled: "still", retired: "still"},
  ...{failed: "bad", lost: "bad", rejected: "bad", timed_out: "bad", unavailable: "bad"},
  ...{unschedulable: "warn", cordoned: "warn", degraded: "warn", deprecated: "warn"},
});

/**
 * A state in a word, with a colour and a shape.
 * @param {string} state
 * @param {string | null} look where the word alone does not say it: an operation that is `running` is busy
 */
export const badge = (state, look = null) =>
  html`<span class="badge ${look ?? LOOKS[state] ?? "still"}"><i aria-hidden="true"></i>${words(state)}</span>`;

/** @param {string} status of an operation */
export const operationBadge = status => badge(status, status === "running" ? "busy" : null);

/**
 * How much of something is in use.
 * @param {string} label
 * @param {number} used
 * @param {number} total
 * @param {string} text such as `3 of 8`
 * @param {number | null} second another amount, in a bar below
 */
export function meter(label, used, total, text, second = null) {
  const part = (/** @type {number} */ value) => (total > 0 ? Math.min(1, value / total) : 0);
  const share = part(used);
  const as = (/** @type {number} */ value) => (/** @type {Element | undefined} */ bar) => {
    if (bar instanceof HTMLElement) bar.style.width = `${(value * 100).toFixed(1)}%`;
  };
  return html`
    <div class="meter" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax=${total} aria-valuenow=${used} aria-valuetext=${text}>
      <span class="meter-label">${label}</span><span class="meter-text">${text}</span>
      <span class="meter-track"><span class="meter-bar ${share > 0.9 ? "full" : ""}" ${ref(as(share))}></span></span>
      ${second === null ? nothing : html`<span class="meter-track"><span class="meter-bar second" ${ref(as(part(second)))}></span></span>`}
    </div>
  `;
}

/**
 * Names and values, as a list.
 * @param {(readonly [string, unknown] | null)[]} pairs
 */
export const facts = pairs => html`
  <dl class="facts">
    ${pairs.map(pair => (pair === null ? nothing : html`<div><dt>${pair[0]}</dt><dd>${pair[1] ?? "–"}</dd></div>`))}
  </dl>
`;

/**
 * What a page shows in place of content that is not there.
 * @param {string} title
 * @param {unknown} text
 * @param {unknown} action
 */
export const empty = (title, text, action = nothing) =>
  html`<div class="empty"><h2>${title}</h2><p>${text}</p>${action}</div>`;

/**
 * A refusal, in the words of the platform.
 * @param {import("../core/problem.js").Problem} problem
 * @param {unknown} action
 */
export const refusal = (problem, action = nothing) => html`
  <div class="refusal" role="alert">
    ${icon("warning")}
    <div>
      <p>${problem.detail}</p>
      <p class="small">${problem.code}${problem.request ? html` · request <code>${problem.request}</code>` : nothing}</p>
      ${action}
    </div>
  </div>
`;
