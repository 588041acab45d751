/** Signing in: at the issuer, if the gateway has one (`GET /v1/login`), or by a token. */

import {html, icon, nothing} from "../core/html.js";
import {of} from "../core/problem.js";
import {atIssuer, issuer, refusalOf, signIn, withoutRefusal} from "../core/session.js";
import {refusal} from "../parts/badge.js";
import {Form} from "../parts/form.js";

/** @type {Form | null} */
let form = null;
/** The host of the issuer at which people can sign in; undefined until the gateway has said whether there is one. @type {string | null | undefined} */
let offered;
let asking = false;

/** @param {{api: import("../core/api.js").Api, changed: () => void}} app */
async function ask(app) {
  if (asking || offered !== undefined) return;
  asking = true;
  try {
    offered = await issuer(app.api);
    app.changed();
  } catch {
    // a token is always a way; the next time that the page is shown, it asks again
  }
  asking = false;
}

/**
 * @param {{api: import("../core/api.js").Api, words: string | null, router: import("../core/router.js").Router, start: () => Promise<void>, changed: () => void}} app
 */
export function signin(app) {
  void ask(app);
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
    app.router.go(withoutRefusal(app.router.here), {replace: true});
    await app.start();
  };
  const words = app.words ?? refusalOf(app.router.query["login"]);
  const wrong = of(mine.problem, "Authorization");
  return html`
    <main class="alone">
      <h1>${icon("nebula")} Nebula</h1>
      ${words === null || mine.problem ? nothing : html`<p class="ended" role="status">${words}</p>`}
      ${!offered
        ? nothing
        : html`<p><button class="primary wide" @click=${() => app.router.leave(atIssuer(app.router.here))}>Sign in with ${offered}</button></p>`}
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
        <button class=${offered ? "" : "primary"} type="submit" ?disabled=${mine.busy}>${mine.busy ? "Signing in…" : "Sign in"}</button>
      </form>
    </main>
  `;
}
