/** `<nb-console .model=${…}>`: the serial console of a VM, in a terminal. */

import {html, nothing, Part, ref} from "../core/html.js";
import {asProblem} from "../core/problem.js";
import {connect} from "../core/socket.js";
import {refusal} from "../parts/badge.js";
import {confirm} from "../parts/confirm.js";
import {LEAVES, leave} from "./vm-leave.js";

/** Milliseconds before the first new try to connect; twice as many before each further one. */
const PACE = 1000;
const TRIES = 5;
/** Milliseconds after which a connection counts as one that lasts: the next loss is a new one. */
const LASTS = 10_000;
/** @typedef {{path: string, phase: string}} ConsoleModel `path`: of the VM in the API */

/** @extends {Part<ConsoleModel>} */
class SerialConsole extends Part {
  /** @type {import("../islands/terminal.js").Screen | null} */ #screen = null;
  /** @type {HTMLElement | null} */ #host = null;
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {import("../core/socket.js").End | null} */ #end = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #alarm;
  #words = "Connecting…";
  #tries = 0;
  /** When the connection was made; null while there is none. @type {number | null} */ #since = null;
  #begun = false;
  #bytes = new TextEncoder();

  /**
   * @param {ConsoleModel} model
   * @param {ConsoleModel | undefined} before
   */
  given(model, before) {
    if (!this.#begun || before === undefined) return;
    // It was asked for before the VM ran.
    const started = model.phase === "running" && this.#end?.problem?.code === "wrong_phase";
    if (model.path !== before.path) this.#screen?.clear();
    if (model.path !== before.path || started) this.#connect();
  }

  disconnectedCallback() {
    this.#begun = false;
    this.#leave();
    this.#screen?.free();
    this.#screen = null;
    this.#host = null;
  }

  shown() {
    if (this.#begun || this.#host === null) return;
    this.#begun = true;
    void this.#begin(this.#host);
  }

  /** @param {HTMLElement} host */
  async #begin(host) {
    try {
      const {terminal} = await import("../islands/terminal.js");
      const screen = await terminal(host, text => this.#send(text));
      if (!this.isConnected || this.#host !== host) {
        screen.free();
        return;
      }
      this.#screen = screen;
      this.#connect();
    } catch (error) {
      this.#words = asProblem(error).detail;
      this.changed();
    }
  }

  #leave() {
    clearTimeout(this.#alarm);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #connect(force = false) {
    this.#leave();
    this.#end = null;
    this.#words = "Connecting…";
    const socket = connect(`${this.model.path}/console`, {force: force ? true : null}, {ended: end => this.#ended(socket, end)});
    this.#socket = socket;
    socket.addEventListener("open", () => this.#opened(socket));
    socket.addEventListener("message", ({data}) => {
      if (socket === this.#socket) this.#screen?.write(new Uint8Array(data));
    });
    this.changed();
  }

  /** @param {WebSocket} socket */
  #opened(socket) {
    if (socket !== this.#socket) return;
    this.#since = performance.now();
    this.#words = "Connected. What you type goes to the VM.";
    this.#screen?.focus();
    this.changed();
  }

  /**
   * @param {WebSocket} socket
   * @param {import("../core/socket.js").End} end
   */
  #ended(socket, end) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    if (this.#since !== null && performance.now() - this.#since > LASTS) this.#tries = 0;
    this.#since = null;
    this.#end = end;
    this.#words = end.words;
    // The network may be away longer than the gateway: the first try after a loss may find nobody.
    const again = end.again || (this.#tries > 0 && end.problem?.status === 0);
    if (again && this.#tries < TRIES) {
      this.#words = `${end.words || "The gateway does not answer."} Connecting again…`;
      this.#alarm = setTimeout(() => this.#connect(), PACE * 2 ** this.#tries);
      this.#tries += 1;
      this.#end = null;
    }
    this.changed();
  }

  /** @param {string} text */
  #send(text) {
    this.#tries = 0;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(this.#bytes.encode(text));
  }

  /**
   * Several lines are several commands for a shell: they are asked about first.
   * @param {ClipboardEvent} event
   */
  async #pasted(event) {
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (!/[\r\n]./s.test(text)) return;
    event.preventDefault();
    event.stopPropagation();
    const lines = text.split(/\r\n|\r|\n/);
    const sure = await confirm({
      title: "Paste several lines?",
      words: html`<p>A shell runs each of these ${lines.length} lines as it comes.</p><pre class="pasted">${text.slice(0, 2000)}</pre>`,
      button: "Paste",
      act: async () => true,
    });
    if (sure) this.#screen?.paste(text);
    this.#screen?.focus();
  }

  view() {
    const {problem = null} = this.#end ?? {};
    const taken = problem?.code === "console_in_use";
    const button = this.#end
      ? html`<button type="button" @click=${() => this.#connect(taken)}>${taken ? "Take it over" : "Connect again"}</button>`
      : nothing;
    return html`
      ${problem ? refusal(problem, button) : html`<p class="guest-state" role="status">${this.#words} ${button}</p>`}
      <div class="terminal-box" data-keys role="region" aria-label="Serial console"
        @keydown=${{handleEvent: leave, capture: true}}
        @paste=${{handleEvent: (/** @type {ClipboardEvent} */ event) => void this.#pasted(event), capture: true}}
        ${ref(host => {
          if (host instanceof HTMLElement) this.#host = host;
        })}></div>
      ${LEAVES} <p class="small">What it said before you came is in the console log.</p>
    `;
  }
}
customElements.define("nb-console", SerialConsole);
