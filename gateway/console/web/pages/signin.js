/** Signing in, by a token. What a gateway offers besides is in `GET /v1/login`. */

import {html, icon, nothing} from "../core/html.js";
import {of} from "../core/problem.js";
import {signIn} from "../core/session.js";
import {refusal} from "../parts/badge.js";
import {Form} from "../parts/form.js";

/** @type {Form | null} */
let form = null;

/**
 * @param {{api: import("../core/api.js").Api, words: string | null, start: () => Promise<void>, changed: () => void}} app
 */
export function signin(app) {
  form ??= new Form({}, () => app.changed());
  const mine = form;
  document.title = "Sign in · Nebula";
  const submit = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const element = /** @type {HTMLFormElement} */ (event.target);
    const input = /** @type {HTMLInputElement} */ (element.elements.namedItem("token"));
    const token = input.value.trim();
    if (token === "") return;
    const done = await mine.run(async () => {
      await signIn(app.api, token);
      return true;
    });
    if (done === null) return;
    input.value = "";
    form = null;
    await app.start();
  };
  const wrong = of(mine.problem, "Authorization");
  return html`
    <main class="alone">
      <h1>${icon("nebula")} Nebula</h1>
      ${app.words === null || mine.problem ? nothing : html`<p class="ended" role="status">${app.words}</p>`}
      <form class="signin" @submit=${submit}>
        <div class="field">
          <label class="field-label" for="token">Token</label>
          <input id="token" name="token" type="password" required autocomplete="off" spellcheck="false" autofocus aria-describedby="token-help"
            aria-invalid=${mine.problem ? "true" : nothing}>
          ${wrong.map(text => html`<p class="field-error">${text}</p>`)}
          <p class="field-help" id="token-help">
            <code>nebula token issue</code> makes one. On the platform's own host, <code>nebula up</code> has put one into <code>admin.token</code>.
            It is sent once; this browser then keeps a cookie that scripts cannot read.
          </p>
        </div>
        ${mine.problem && wrong.length === 0 ? refusal(mine.problem) : nothing}
        <button class="primary" type="submit" ?disabled=${mine.busy}>${mine.busy ? "Signing in…" : "Sign in"}</button>
      </form>
    </main>
  `;
}
