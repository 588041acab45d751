/** The same thing without the console: the call as `curl`, and as a command of `nebula`, to copy. */

import {html, icon, nothing} from "../core/html.js";
import {say} from "./toast.js";

/**
 * A word for a shell.
 * @param {string} text
 */
export const quoted = text => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/**
 * @param {string} method
 * @param {string} path
 * @param {unknown} body
 * @param {string} origin such as `http://127.0.0.1:8700`
 */
function curl(method, path, body, origin = location.origin) {
  const words = ["curl", "-X", method, quoted(origin + path), "-H", `"Authorization: Bearer $NEBULA_TOKEN"`];
  if (body !== null && body !== undefined) words.push("-H", "'Content-Type: application/json'", "-d", quoted(JSON.stringify(body)));
  return words.join(" ");
}

/**
 * @param {object} call
 * @param {string} call.method
 * @param {string} call.path
 * @param {unknown} [call.body]
 * @param {string | null} [call.cli] the command of `nebula`, if there is one
 * @param {boolean} [call.open] whether it is shown from the beginning
 */
export const command = ({method, path, body = null, cli = null, open = false}) => html`
  <details class="command" ?open=${open}>
    <summary>The same without the console</summary>
    ${cli === null ? nothing : line("nebula", cli)} ${line("HTTP", curl(method, path, body))}
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
