/** The state of a form: its values, whether it is being sent, and what was refused. */

import {elsewhere, asProblem} from "../core/problem.js";
import {html, nothing} from "../core/html.js";
import {refusal} from "./badge.js";

export {body, labels} from "./values.js";

export class Form {
  /** @type {import("../core/problem.js").Problem | null} */ problem = null;
  busy = false;
  #key = crypto.randomUUID();
  #body = "";

  /**
   * @param {Record<string, string>} values
   * @param {() => void} changed
   */
  constructor(values, changed) {
    this.values = {...values};
    this.changed = changed;
  }

  /** @param {string} name */
  text(name) {
    return this.values[name] ?? "";
  }

  /**
   * The value of a field as a number; null for none.
   * @param {string} name
   */
  number(name) {
    const text = this.text(name).trim();
    return text === "" ? null : Number(text);
  }

  /**
   * @param {string} name
   * @param {string} value
   */
  set(name, value) {
    this.values[name] = value;
    this.changed();
  }

  /**
   * Send a command. The same body has the same key, so that a repeat after an answer that was lost is the same command.
   * @template R
   * @param {import("../core/api.js").Api} api
   * @param {string} method
   * @param {string} path
   * @param {unknown} body
   * @returns {Promise<{operation: Operation, resource: R, position: number, others: Record<string, unknown>} | null>} null if it was refused; `problem` says why
   */
  async send(api, method, path, body) {
    const text = `${method} ${path} ${JSON.stringify(body)}`;
    if (text !== this.#body) this.#key = crypto.randomUUID();
    this.#body = text;
    return this.run(() => api.send(method, path, body, {key: this.#key}));
  }

  /**
   * Do something that may be refused.
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T | null>}
   */
  async run(work) {
    if (this.busy) return null;
    this.busy = true;
    this.problem = null;
    this.changed();
    try {
      return await work();
    } catch (error) {
      this.problem = asProblem(error);
      return null;
    } finally {
      this.busy = false;
      this.changed();
    }
  }

  /**
   * What was refused, but for what stands at the fields.
   * @param {string[]} names the fields of the form
   */
  refusal(names) {
    if (this.problem === null) return nothing;
    const others = elsewhere(this.problem, names);
    const list = others.length > 0 ? html`<ul>${others.map(({field, detail}) => html`<li><code>${field}</code>: ${detail}</li>`)}</ul>` : nothing;
    return refusal(this.problem, list);
  }
}
