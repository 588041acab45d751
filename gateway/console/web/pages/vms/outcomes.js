/**
 * Several commands, and what became of each: a few are sent at the same time, and each is followed to the end of its
 * operation. What was refused can be tried again.
 *
 * A command that may have arrived keeps its key and its body, so that it is not carried out twice. One that was refused keeps
 * its key, too, unless its body is another by then: a refusal uses no key up. Only after an operation has failed is the key a new one.
 */

import {html, nothing} from "../../core/html.js";
import {counted} from "../../core/format.js";
import {asProblem} from "../../core/problem.js";
import {badge} from "../../parts/badge.js";
import {ENDED} from "../../parts/progress.js";

/** How many commands are sent at the same time, and how many operations are read at the same time. */
const WIDTH = 4;
/** Milliseconds between two looks at operations, and until one is read of which the log has said nothing. */
const PACE = 700;
const SILENT = 5000;
/** How many are shown. */
const SHOWN = 100;

/** @typedef {{method: string, path: string, body: unknown}} Call */
/**
 * @typedef {object} Task
 * @property {string} name
 * @property {() => Promise<Call | null>} call what is sent; null: there is nothing to do
 * @property {Operation} [operation] it was accepted already
 */
/**
 * @typedef {object} Entry
 * @property {Task} task
 * @property {"waiting" | "sending" | "unchanged" | "accepted" | "succeeded" | "failed" | "refused" | "unknown"} state `unknown`: no answer came
 * @property {string} words why, of what was not done
 * @property {Call | null} sent
 * @property {string} text what was sent last: another body gets another key
 * @property {string} key
 * @property {string | null} operation
 * @property {number} looked when its operation was read, in milliseconds since 1970
 */

const AGAIN = new Set(["failed", "refused", "unknown"]);
/** @type {Record<string, string>} */
const LOOKS = {waiting: "still", sending: "busy", unchanged: "still", accepted: "busy", unknown: "bad"};
/** What needs somebody stands first. */
const ORDER = ["unknown", "refused", "failed", "sending", "waiting", "accepted", "unchanged", "succeeded"];

export class Outcomes {
  /** @type {Entry[]} */ entries;
  /** @type {Set<string>} operations of which the log has said something */ #noted = new Set();
  #busy = false;
  #following = false;

  /**
   * @param {Context} context
   * @param {string} title such as `Stop`
   * @param {Task[]} tasks
   */
  constructor({api, live, signal, changed}, title, tasks) {
    this.api = api;
    this.title = title;
    this.told = changed;
    this.signal = signal;
    this.entries = tasks.map(task => ({
      task,
      state: task.operation ? "accepted" : "waiting",
      ...{words: "", sent: null, text: "", key: crypto.randomUUID(), operation: task.operation?.id ?? null, looked: 0},
    }));
    const off = live.on(events => {
      for (const {operation} of events) if (operation !== null) this.#noted.add(operation);
    });
    signal.addEventListener("abort", off);
    this.close = off;
  }

  /** Send what waits. */
  async run() {
    if (this.#busy) return;
    this.#busy = true;
    const waiting = this.entries.filter(({state}) => state === "waiting");
    const work = async () => {
      for (let entry = waiting.shift(); entry !== undefined && !this.signal.aborted; entry = waiting.shift()) {
        await this.#send(entry);
        this.told();
      }
    };
    void this.#follow();
    await Promise.all(Array.from({length: WIDTH}, work));
    this.#busy = false;
    this.told();
    await this.#follow();
  }

  /** Try again what was not done. */
  again() {
    for (const entry of this.entries) {
      if (!AGAIN.has(entry.state)) continue;
      if (entry.state !== "unknown") entry.sent = null;
      if (entry.state === "failed") entry.key = crypto.randomUUID();
      entry.state = "waiting";
      entry.words = "";
    }
    void this.run();
  }

  /** @param {Entry} entry */
  async #send(entry) {
    entry.state = "sending";
    try {
      const call = entry.sent ?? (await entry.task.call());
      if (call === null) {
        entry.state = "unchanged";
        return;
      }
      const text = JSON.stringify(call);
      if (text !== entry.text) entry.key = crypto.randomUUID();
      Object.assign(entry, {text, sent: call});
      const {method, path, body} = call;
      const {operation} = await this.api.send(method, path, body, {key: entry.key});
      entry.operation = operation.id;
      this.#seen(entry, operation);
    } catch (error) {
      const problem = asProblem(error);
      entry.state = problem.status === 0 || problem.status >= 500 ? "unknown" : "refused";
      entry.words = [problem.detail, ...problem.errors.map(({field, detail}) => `${field}: ${detail}`)].join("; ");
    }
  }

  /**
   * @param {Entry} entry
   * @param {Operation} operation
   */
  #seen(entry, {status, problem}) {
    if (!ENDED.has(status)) entry.state = "accepted";
    else if (status === "succeeded") entry.state = "succeeded";
    else {
      entry.state = "failed";
      entry.words = problem?.detail ?? status;
    }
  }

  /** Read the operations that go on, until all have ended. */
  async #follow() {
    if (this.#following) return;
    this.#following = true;
    while (!this.signal.aborted) {
      const going = this.entries.filter(({state}) => state === "accepted");
      if (going.length === 0) break;
      await new Promise(resolve => setTimeout(resolve, PACE));
      const due = going.filter(({operation, looked}) => this.#noted.has(operation ?? "") || Date.now() - looked > SILENT);
      await Promise.all(due.slice(0, WIDTH * 2).map(entry => this.#look(entry)));
      if (due.length > 0) this.told();
    }
    this.#following = false;
  }

  /** @param {Entry} entry */
  async #look(entry) {
    entry.looked = Date.now();
    this.#noted.delete(entry.operation ?? "");
    try {
      this.#seen(entry, await this.api.get(`/v1/operations/${entry.operation}`, {}, {signal: this.signal}));
    } catch {
      // it is looked at again; until then it counts as accepted
    }
  }

  /** @param {Entry["state"][]} states */
  #count(...states) {
    return this.entries.filter(({state}) => states.includes(state)).length;
  }

  /** How it stands, in a line. */
  get words() {
    const refused = this.#count("refused");
    const failed = this.#count("failed");
    const unknown = this.#count("unknown");
    const unchanged = this.#count("unchanged");
    return [
      `${this.title}: ${this.#count("accepted", "succeeded", "failed")} of ${this.entries.length} accepted`,
      `${this.#count("succeeded")} done`,
      ...(refused ? [`${refused} refused`] : []),
      ...(failed ? [`${failed} failed`] : []),
      ...(unknown ? [`${unknown} without an answer`] : []),
      ...(unchanged ? [`${unchanged} unchanged`] : []),
    ].join(", ");
  }

  /** @param {() => void} close */
  view(close) {
    const again = this.#busy ? 0 : this.#count("failed", "refused", "unknown");
    const sorted = this.entries.toSorted((one, other) => ORDER.indexOf(one.state) - ORDER.indexOf(other.state));
    return html`
      <section class="card outcomes" aria-label="Outcomes">
        <p class="progress-head"><strong role="status">${this.words}</strong><span class="grow"></span>
          ${again > 0 ? html`<button class="primary" @click=${() => this.again()}>Try again: ${counted(again, "VM")}</button>` : nothing}
          <button @click=${close}>Close</button>
        </p>
        <ul class="plain-list scrolls" tabindex="0" aria-label="Each of them">
          ${sorted.slice(0, SHOWN).map(
            ({task, state, words}) => html`<li><strong>${task.name}</strong> ${badge(state, LOOKS[state] ?? null)}${words ? html` <span>${words}</span>` : nothing}</li>`,
          )}
        </ul>
        ${sorted.length > SHOWN ? html`<p class="small">and ${sorted.length - SHOWN} more</p>` : nothing}
      </section>
    `;
  }
}
