/** `<nb-progress .model=${…}>`: an operation and its steps, live, until it has ended. */

import {html, nothing, Part} from "../core/html.js";
import {ago, bytes, duration, moment, words} from "../core/format.js";
import {asProblem} from "../core/problem.js";
import {aborted} from "../core/api.js";
import {facts, meter, operationBadge, refusal} from "./badge.js";

/** @typedef {{id: string, api: import("../core/api.js").Api, live: import("../core/live.js").Live, ended?: (operation: Operation) => void, plain?: boolean, waits?: string | null}} ProgressModel `waits`: what it waits for */

/** Milliseconds after which it is read again, if the log says nothing. */
const PACE = 4000;
/** The states after which nothing comes. */
export const ENDED = new Set(["succeeded", "failed", "timed_out", "cancelled"]);

/** The most steps that are shown in the words of the platform. */
const STEPS = 200;

/** @param {string} type with its prefix */
const short = type => type.slice(type.lastIndexOf(".") + 1);

/** @param {Operation} operation */
const deadline = ({deadline: until}) => (until ? html`<span class="small">its deadline is <time datetime=${until} title=${moment(until)}>${ago(until)}</time></span>` : nothing);

/** @extends {Part<ProgressModel>} */
class Progress extends Part {
  /** @type {Operation | null} */ #operation = null;
  /** The words of the platform for each step, by its position. @type {Map<number, string>} */ #said = new Map();
  /** @type {import("../core/problem.js").Problem | null} */ #problem = null;
  /** @type {(() => void) | null} */ #off = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #alarm;
  #abort = new AbortController();

  /**
   * @param {ProgressModel} model
   * @param {ProgressModel | undefined} before
   */
  given(model, before) {
    if (before?.id === model.id) return;
    this.#operation = null;
    void this.#read();
  }

  connectedCallback() {
    super.connectedCallback();
    this.#abort = new AbortController();
    this.#off = this.model.live.on(events => {
      if (events.some(({operation}) => operation === this.model.id)) void this.#read();
    });
  }

  disconnectedCallback() {
    this.#off?.();
    this.#abort.abort();
    clearTimeout(this.#alarm);
  }

  async #read() {
    clearTimeout(this.#alarm);
    const {id, api, ended} = this.model;
    const before = this.#operation;
    try {
      /** @type {Operation} */
      const found = await api.get(`/v1/operations/${id}`, {}, {signal: this.#abort.signal});
      if (id !== this.model.id) return;
      this.#operation = found;
      void this.#ask(found);
      this.#problem = null;
      if (ENDED.has(found.status) && (before === null || !ENDED.has(before.status))) ended?.(found);
    } catch (error) {
      if (aborted(error)) return;
      this.#problem = asProblem(error);
    }
    if (this.isConnected && !(this.#operation && ENDED.has(this.#operation.status))) {
      this.#alarm = setTimeout(() => void this.#read(), PACE);
    }
    this.changed();
  }

  /**
   * Ask for the words of steps that have none yet. Without them, a step has those of its type.
   * @param {Operation} operation
   */
  async #ask({id, events}) {
    if (events.every(({position}) => this.#said.has(position))) return;
    try {
      /** @type {ListOf<CloudEvent>} */
      const {items} = await this.model.api.get("/v1/events", {operation: id, limit: STEPS}, {signal: this.#abort.signal, now: true});
      this.#said = new Map(items.map(({position, type, words: said}) => [position, said ?? words(short(type))]));
    } catch (error) {
      if (!aborted(error)) asProblem(error);
      return;
    }
    this.changed();
  }

  /** @param {ProgressModel} model */
  view({plain = false, waits = null}) {
    const operation = this.#operation;
    if (operation === null) return this.#problem ? refusal(this.#problem) : html`<p class="small" aria-busy="true">Reading the operation…</p>`;
    const began = Date.parse(operation.accepted_at);
    const {progress} = operation;
    return html`
      <section class="progress" aria-label="Operation ${words(operation.verb)}">
        <p class="progress-head">
          <strong>${words(operation.verb)}</strong> ${operationBadge(operation.status)}
          <span class="small">by ${operation.actor}${operation.ended_at ? html`, took ${duration(Date.parse(operation.ended_at) - began)}` : nothing}</span>
        </p>
        ${progress && !ENDED.has(operation.status)
          ? meter("Transferred", progress.bytes_done, progress.bytes_total ?? progress.bytes_done, `${bytes(progress.bytes_done)} of ${progress.bytes_total === null ? "?" : bytes(progress.bytes_total)}`)
          : nothing}
        <ol class="steps" aria-live="polite">
          ${operation.events.map(
            event => html`
              <li>
                <span>${this.#said.get(event.position) ?? words(short(event.type))}</span>
                <span class="small">+${duration(Math.max(0, Date.parse(event.time) - began))} · position ${event.position}</span>
              </li>
            `,
          )}
          ${ENDED.has(operation.status) ? nothing : html`<li class="waiting"><span>${waits ?? "Waiting for the next step"}</span>${deadline(operation)}</li>`}
        </ol>
        ${operation.problem ? html`<p class="field-error">${operation.problem.detail} <span class="small">${operation.problem.code}</span></p>` : nothing}
        ${operation.warnings.map(warning => html`<p class="field-hint">${warning.detail}</p>`)}
        ${plain ? nothing : facts([["Operation", html`<code>${operation.id}</code>`], ["Request", html`<code>${operation.request_id}</code>`]])}
      </section>
    `;
  }
}
customElements.define("nb-progress", Progress);
