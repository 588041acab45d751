/** The same thing without the console: the call as `curl`, and as a command of `nebula`, to copy. */

import {html, icon, nothing} from "../core/html.js";
import {curl} from "./shell.js";
import {say} from "./toast.js";

export {quoted} from "./shell.js";

/**
 * @param {object} call
 * @param {string} call.method
 * @param {string} call.path
 * @param {unknown} [call.body]
 * @param {string | null} [call.cli] the command of `nebula`, if there is one
 * @param {number} [call.count] so many times, with a number behind the name
 * @param {boolean} [call.open] whether it is shown from the beginning
 */
export const command = ({method, path, body = null, cli = null, count = 1, open = false}) => html`
  <details class="command" ?open=${open}>
    <summary>The same without the console</summary>
    ${cli === null ? nothing : line("nebula", cli)} ${line("HTTP", curl(method, path, body, count))}
  </details>
`;

/**
 * @param {string} label
 * @param {string} text
 */
const line = (label, text) => html`
  <div class="command-line">
    <span class="small">${label}</span><code tabindex="0">${text}</code>
    <button type="button" class="plain" aria-label="Copy the ${label} command" @click=${() => copy(text)}>${icon("copy")}</button>
  </div>
`;

/**
 * Copy a text, and say whether that was possible.
 * @param {string} text
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
  } catch {
    say("The browser does not allow this page to copy: select the text", "bad");
  }
}
