/** Questions before what cannot be taken back. Nothing is destroyed without naming it. */

import {html, nothing} from "../core/html.js";
import {asProblem} from "../core/problem.js";
import {refusal} from "./badge.js";
import {open} from "./dialog.js";

/**
 * The field in which a name has to be typed before something is destroyed.
 * @param {string} name
 * @param {(text: string) => void} typed
 */
export const naming = (name, typed) => html`
  <label class="field">
    <span class="field-label">Type <code>${name}</code> to confirm</span>
    <input type="text" autocomplete="off" spellcheck="false" name="confirm"
      @input=${(/** @type {Event} */ event) => typed(/** @type {HTMLInputElement} */ (event.target).value)}>
  </label>
`;

/**
 * Ask, and act. The dialogue stays open until the platform has accepted it, and shows its refusal.
 * @template R
 * @param {object} about
 * @param {string} about.title
 * @param {unknown} about.words what will happen
 * @param {string} about.button the verb, such as `Delete`
 * @param {string} [about.name] the name that has to be typed
 * @param {boolean} [about.danger]
 * @param {unknown} [about.more] more of the dialogue, such as the call that is sent
 * @param {() => Promise<R>} about.act
 * @returns {Promise<R | undefined>} undefined if nothing was done
 */
export function confirm({title, words, button, name, danger = false, more = nothing, act}) {
  let typed = "";
  let busy = false;
  /** @type {import("../core/problem.js").Problem | null} */
  let problem = null;
  return open(
    title,
    dialog => {
      const ready = !busy && (name === undefined || typed === name);
      const submit = async (/** @type {Event} */ event) => {
        event.preventDefault();
        if (!ready) return;
        busy = true;
        problem = null;
        dialog.changed();
        try {
          dialog.close(await act());
        } catch (error) {
          problem = asProblem(error);
          busy = false;
          dialog.changed();
        }
      };
      return html`
        <form class="dialog-form" @submit=${submit}>
          <div class="dialog-body">
            <div>${words}</div>
            ${name === undefined
              ? nothing
              : naming(name, text => {
                  typed = text;
                  dialog.changed();
                })}
            ${problem ? refusal(problem) : nothing} ${more}
          </div>
          <footer class="dialog-foot">
            <button type="button" ?disabled=${busy} @click=${() => dialog.close()}>Cancel</button>
            <button type="submit" class=${danger ? "danger" : "primary"} ?disabled=${!ready} ?autofocus=${name === undefined}>${busy ? "Sending…" : button}</button>
          </footer>
        </form>
      `;
    },
    {mayClose: () => !busy},
  );
}
