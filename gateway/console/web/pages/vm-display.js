/** `<nb-display .model=${…}>`: the display of a VM, with its keyboard and its mouse. */

import {html, nothing, Part, ref} from "../core/html.js";
import {asProblem} from "../core/problem.js";
import {connect} from "../core/socket.js";
import {refusal} from "../parts/badge.js";
import {LEAVES, leave} from "./vm-leave.js";

/** @typedef {{path: string, phase: string}} DisplayModel `path`: of the VM in the API */

/** @extends {Part<DisplayModel>} */
class Screen extends Part {
  /** @type {import("../islands/display.js").Display | null} */ #display = null;
  /** @type {HTMLElement | null} */ #host = null;
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {import("../core/socket.js").End | null} */ #end = null;
  #words = "Connecting…";
  #shown = false;
  /** Whether the display gets the keyboard as soon as it is seen. */
  #takesKeys = false;
  #begun = false;

  /** @param {DisplayModel} model */
  given({phase}) {
    if (this.#begun && phase === "running" && this.#end?.problem?.code === "wrong_phase") void this.#connect();
  }

  disconnectedCallback() {
    this.#begun = false;
    this.#leave();
    this.#host = null;
  }

  shown() {
    if (this.#shown && this.#takesKeys) {
      this.#takesKeys = false;
      this.#display?.focus();
    }
    if (this.#begun || this.#host === null) return;
    this.#begun = true;
    void this.#connect();
  }

  #leave() {
    const display = this.#display;
    this.#display = null;
    this.#socket = null;
    this.#shown = false;
    display?.free();
  }

  async #connect() {
    this.#leave();
    this.#end = null;
    this.#words = "Connecting…";
    this.changed();
    try {
      const {display} = await import("../islands/display.js");
      if (this.#host === null || !this.isConnected) return;
      const socket = connect(`${this.model.path}/vnc`, {}, {ended: end => this.#ended(socket, end)});
      this.#socket = socket;
      this.#display = display(this.#host, socket, {shown: () => this.#opened(socket), failed: words => this.#say(words)});
    } catch (error) {
      this.#say(asProblem(error).detail);
    }
  }

  /** @param {string} words */
  #say(words) {
    this.#words = words;
    this.changed();
  }

  /** @param {WebSocket} socket */
  #opened(socket) {
    if (socket !== this.#socket) return;
    this.#shown = this.#takesKeys = true;
    this.#say("Connected.");
  }

  /**
   * @param {WebSocket} socket
   * @param {import("../core/socket.js").End} end
   */
  #ended(socket, end) {
    if (socket !== this.#socket) return;
    this.#leave();
    this.#end = end;
    this.#say(end.words);
  }

  view() {
    const {problem = null} = this.#end ?? {};
    const again = this.#end ? html`<button type="button" @click=${() => void this.#connect()}>Connect again</button>` : nothing;
    return html`
      ${problem ? refusal(problem, again) : html`<p class="guest-state" role="status">${this.#words} ${again}</p>`}
      <div class="filters" role="group" aria-label="The display" ?hidden=${!this.#shown}>
        <button type="button" @click=${() => this.#display?.reset()}>Send Ctrl-Alt-Del</button>
        <button type="button" @click=${() => void this.#host?.requestFullscreen()}>Full screen</button>
      </div>
      <div class="display-box" ?hidden=${!this.#shown} data-keys role="region" aria-label="Display" @keydown=${{handleEvent: leave, capture: true}}
        ${ref(host => {
          if (host instanceof HTMLElement) this.#host = host;
        })}></div>
      ${this.#shown ? LEAVES : nothing}
    `;
  }
}
customElements.define("nb-display", Screen);
