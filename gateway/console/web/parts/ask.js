/** A dialogue with fields that sends one command, with the same call beside it for those who do without the console. */

import {html, nothing} from "../core/html.js";
import {command, copy} from "./command.js";
import {naming} from "./confirm.js";
import {open} from "./dialog.js";
import {field} from "./field.js";
import {Form} from "./form.js";
import {say} from "./toast.js";

/**
 * @typedef {object} Sent
 * @property {string} method
 * @property {string} path
 * @property {Record<string, unknown> | null} body
 * @property {string | null} [cli] the same as a command of `nebula`
 */

/**
 * Ask for the values of a command, and send it. Refusals stand at their fields; the dialogue stays open until it is accepted.
 * @template R
 * @param {Context} context
 * @param {object} about
 * @param {string} about.title
 * @param {string} about.button the verb
 * @param {unknown} [about.words]
 * @param {(form: Form) => import("./field.js").Field[]} about.fields
 * @param {Record<string, string>} [about.values]
 * @param {(form: Form) => Sent | null} about.call null: something is still missing
 * @param {string} [about.done] what is said after it was accepted
 * @param {boolean} [about.danger]
 * @param {string} [about.name] the name that has to be typed
 * @returns {Promise<{operation: Operation, resource: R, position: number, others: Record<string, unknown>} | undefined>} undefined if nothing was sent
 */
export function ask({api, refresh}, {title, button, words = nothing, fields, values = {}, call, done, danger = false, name}) {
  let changed = () => {};
  let typed = "";
  const form = new Form(values, () => changed());
  return open(
    title,
    dialog => {
      changed = dialog.changed;
      const shown = fields(form);
      const sent = call(form);
      const ready = sent !== null && (name === undefined || typed === name);
      const submit = async (/** @type {Event} */ event) => {
        event.preventDefault();
        if (sent === null || !ready) return;
        const answer = await form.send(api, sent.method, sent.path, sent.body);
        if (answer === null) return;
        if (done) say(done);
        refresh();
        dialog.close(answer);
      };
      return html`
        <form class="dialog-form" @submit=${submit}>
          <div class="dialog-body">
            ${words}
            <div>${shown.map(each => field(form, each))}</div>
            ${name === undefined
              ? nothing
              : naming(name, text => {
                  typed = text;
                  dialog.changed();
                })}
            ${form.refusal(shown.map(each => each.name))}
            ${sent === null ? nothing : command({method: sent.method, path: sent.path, body: sent.body, cli: sent.cli ?? null})}
          </div>
          <footer class="dialog-foot">
            <button type="button" ?disabled=${form.busy} @click=${() => dialog.close()}>Cancel</button>
            <button type="submit" class=${danger ? "danger" : "primary"} ?disabled=${form.busy || !ready}>${form.busy ? "Sending…" : button}</button>
          </footer>
        </form>
      `;
    },
    {mayClose: () => !form.busy},
  );
}

/**
 * Show a secret once. It can be copied, and the dialogue is closed by saying that it is stored.
 * @param {string} title
 * @param {unknown} words
 * @param {string} secret
 * @param {string} label
 */
export const once = (title, words, secret, label) =>
  open(
    title,
    dialog => html`
      <div class="dialog-body">
        <div>${words}</div>
        <label class="field"><span class="field-label">${label}</span>
          <textarea class="secret" rows="3" readonly autofocus .value=${secret} @focus=${(/** @type {Event} */ event) => /** @type {HTMLTextAreaElement} */ (event.target).select()}></textarea></label>
        <p class="field-hint">It is shown only here and only now.</p>
      </div>
      <footer class="dialog-foot">
        <button type="button" @click=${() => void copy(secret)}>Copy</button>
        <button type="button" class="primary" @click=${() => dialog.close()}>I have stored it</button>
      </footer>
    `,
    {mayClose: () => false},
  );
