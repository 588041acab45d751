/** `<nb-console-log .model=${…}>`: what a VM has written to its serial console, and what it writes now. */

import {html, nothing, Part, ref} from "../core/html.js";
import {aborted} from "../core/api.js";
import {asProblem} from "../core/problem.js";
import {refusal} from "../parts/badge.js";
import {MOST, plain} from "./vm-text.js";

/** @typedef {{api: import("../core/api.js").Api, path: string, phase: string}} LogModel `path`: of the VM in the API */

/** How many bytes of the past are read at first, and with each answer. */
const BYTES = 65_536;
/** Milliseconds between two tries while its node does not answer, and between two readings while much is written. */
const PAUSE = 5000;
const PACE = 200;

/** @extends {Part<LogModel>} */
class ConsoleLog extends Part {
  #text = "";
  /** @type {import("../core/problem.js").Problem | null} */ #problem = null;
  #begun = false;
  #cut = false;
  #abort = new AbortController();
  /** @type {HTMLElement | null} */ #box = null;
  /** Whether the end is in view. */
  #last = true;

  /**
   * @param {LogModel} model
   * @param {LogModel | undefined} before
   */
  given(model, before) {
    const started = before !== undefined && before.phase !== model.phase && this.#problem !== null;
    if (before !== undefined && (before.path !== model.path || started)) this.#again();
  }

  connectedCallback() {
    super.connectedCallback();
    this.#again();
  }

  disconnectedCallback() {
    this.#abort.abort();
  }

  #again() {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#text = "";
    this.#begun = this.#cut = false;
    void this.#follow(this.#abort.signal);
  }

  /** @param {AbortSignal} signal */
  async #follow(signal) {
    const {api, path} = this.model;
    const decoder = new TextDecoder();
    let cursor = /** @type {string | null} */ (null);
    while (!signal.aborted) {
      let pause = PACE;
      try {
        const found = await api.bytes(`${path}/console-log`, cursor === null ? {bytes: BYTES} : {bytes: BYTES, cursor, wait: "20s"}, signal);
        cursor = found.cursor;
        this.#problem = null;
        this.#begun = true;
        this.#add(decoder.decode(found.bytes, {stream: true}));
      } catch (error) {
        if (aborted(error) || signal.aborted) return;
        this.#problem = asProblem(error);
        if (this.#problem.status > 0 && this.#problem.status < 500) {
          this.changed();
          return;
        }
        pause = PAUSE;
      }
      this.changed();
      await new Promise(resolve => setTimeout(resolve, pause));
    }
  }

  /** @param {string} text */
  #add(text) {
    if (text === "") return;
    const whole = this.#text + text;
    this.#cut ||= whole.length > MOST;
    this.#text = whole.slice(-MOST);
  }

  shown() {
    const box = this.#box;
    if (box && this.#last) box.scrollTop = box.scrollHeight;
  }

  view() {
    if (this.#box) this.#last = this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < 40;
    return html`
      ${this.#problem ? refusal(this.#problem, html`<button type="button" @click=${() => this.#again()}>Read again</button>`) : nothing}
      ${this.#cut ? html`<p class="small">Only the end is shown. <code>nebula vm console-log</code> shows all that its node keeps.</p>` : nothing}
      <pre class="log-box" tabindex="0" role="region" aria-label="Console log" ?hidden=${!this.#begun} ${ref(box => {
        this.#box = box instanceof HTMLElement ? box : null;
      })}>${plain(this.#text) || "It has written nothing yet."}</pre>
      ${!this.#begun && this.#problem === null ? html`<p class="small" aria-busy="true">Asking its node…</p>` : nothing}
    `;
  }
}
customElements.define("nb-console-log", ConsoleLog);
