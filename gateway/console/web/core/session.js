/**
 * Signing in and out, and the end of a session. A token is sent once and not kept: from then on the browser has a cookie that
 * no script can read. A session of an OIDC issuer is renewed before it ends.
 */

import {forgetDrafts} from "./drafts.js";
import {Me} from "./me.js";
import {Problem} from "./problem.js";
import {queryOf} from "./router.js";

/** @typedef {import("./api.js").Api} Api */

/** Seconds before its end at which a session is renewed, and at which the page says that it will end. */
const RENEWED = 60;
const SHOWN = 300;
/** Milliseconds between two looks at the clock, which a computer that slept has put forward. */
const LOOK = 5000;
/** The lock of the tab that renews. */
const LOCK = "nebula-renewal";

/** Whether somebody was signed in here: a browser in which nobody was asks first who it is, since each refused call is recorded. */
const SIGNED_IN = "nebula.signed-in";

/**
 * The session. Raises Problem.
 * @param {Api} api
 * @returns {Promise<SessionView>}
 */
const read = api => api.call("GET", "/v1/session");

/** Whether it is likely that somebody is signed in. */
export const expected = () => localStorage.getItem(SIGNED_IN) !== null;

/**
 * Who is signed in, and the session: null if callers need no token. null if nobody is signed in.
 * @param {Api} api
 * @returns {Promise<{me: Me, session: SessionView | null} | null>}
 */
export async function whoAmI(api) {
  try {
    const early = expected() ? own(api) : null;
    early?.catch(() => {}); // the other answer says the same
    /** @type {MeView} */
    const view = await api.call("GET", "/v1/me");
    const session = await (early ?? own(api));
    api.begun(session?.csrf ?? null);
    localStorage.setItem(SIGNED_IN, "yes");
    return {me: new Me(view, session !== null), session};
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
    localStorage.removeItem(SIGNED_IN);
    return null;
  }
}

/**
 * The session; null if callers need no token. Raises Problem.
 * @param {Api} api
 */
async function own(api) {
  try {
    return await read(api);
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return null;
    throw error;
  }
}

/**
 * Begin a session. Raises Problem.
 * @param {Api} api
 * @param {string} token
 */
export async function signIn(api, token) {
  await api.call("POST", "/v1/session", {Authorization: `Bearer ${token.trim()}`});
}

/**
 * End the session, if it has not ended by itself.
 * @param {Api} api
 */
export async function signOut(api) {
  forgetDrafts();
  try {
    await api.call("DELETE", "/v1/session");
  } catch (error) {
    if (!(error instanceof Problem) || (error.status !== 401 && error.status !== 404)) throw error;
  }
}

/** Follows the session of this browser to its end. */
export class Watch {
  /** Why somebody has to sign in again soon; null if nobody has to. @type {string | null} */ words = null;
  /** When it ends, by the clock of this browser. */
  #ends = Infinity;
  /** How early it is renewed, in milliseconds. */
  #early = 0;
  #renewable = false;
  #busy = false;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #looking;

  /**
   * @param {Api} api
   * @param {() => void} changed is called when `words` are others
   */
  constructor(api, changed) {
    this.api = api;
    this.changed = changed;
  }

  /**
   * Begin with the session that there is now.
   * @param {SessionView | null} session null: callers need no token
   */
  async start(session) {
    this.stop();
    if (session === null) return;
    this.#take(session);
    this.#looking = setInterval(() => void this.#look(), LOOK);
    await this.#look();
  }

  stop() {
    clearInterval(this.#looking);
    this.#looking = undefined;
    this.#say(null);
  }

  /** @param {SessionView} session */
  #take({expires_in: seconds, renewable}) {
    this.#ends = Date.now() + seconds * 1000;
    this.#early = Math.min(RENEWED, seconds / 2) * 1000;
    this.#renewable = renewable;
  }

  async #look() {
    const left = this.#ends - Date.now();
    if (this.#renewable && left < this.#early && !this.#busy) {
      this.#busy = true;
      await this.#renew();
      this.#busy = false;
      return;
    }
    if (!this.#renewable && left < SHOWN * 1000) this.#say(`Your session ends ${left < 60_000 ? "in less than a minute" : `in ${Math.ceil(left / 60_000)} minutes`}.`);
    else this.#say(null);
  }

  /** Renew it, unless another tab just has. */
  async #renew() {
    const turn = async () => {
      const before = await read(this.api);
      this.#take(before.expires_in > RENEWED ? before : await this.api.call("POST", "/v1/session/renew"));
    };
    try {
      await (navigator.locks === undefined ? turn() : navigator.locks.request(LOCK, turn));
    } catch (error) {
      if (error instanceof Problem && error.status === 409) this.#renewable = false;
    }
  }

  /** @param {string | null} words */
  #say(words) {
    if (words === this.words) return;
    this.words = words;
    this.changed();
  }
}

/**
 * The issuer at which somebody can sign in here, by its host; null if there is none.
 * @param {Api} api
 * @returns {Promise<string | null>}
 */
export async function issuer(api) {
  /** @type {LoginView} */
  const {oidc} = await api.call("GET", "/v1/login");
  return oidc === null ? null : new URL(oidc.issuer).host;
}

/**
 * The address at which signing in at the issuer begins.
 * @param {string} page where it ends
 */
export const atIssuer = page => `/v1/login/begin${queryOf({page: withoutRefusal(page)})}`;

/** Why a sign-in at the issuer has failed, by the code in the address. */
const REFUSALS = new Map([
  ["denied", "You have not signed in: it was refused at the issuer."],
  ["lost", "You have not signed in: this browser has begun no such sign-in. Begin again, here."],
  ["late", "You have not signed in: it took too long. Begin again."],
  ["away", "You cannot sign in there now: the issuer does not answer. Try again in a moment."],
  ["token", "You have not signed in: the platform does not accept what the issuer gave for you. Its log says why."],
  ["long", "You have not signed in: the issuer's token is too long for this browser. Use a token of the platform."],
  ["page", "That address leads to no page of the console. Sign in here."],
  ["none", "Nobody signs in at an issuer here. Use a token."],
]);

/**
 * @param {string | undefined} code
 * @returns {string | null}
 */
export function refusalOf(code) {
  if (code === undefined) return null;
  return REFUSALS.get(code) ?? "You have not signed in: the issuer has refused it. The log of the platform says why.";
}

/**
 * An address without the code of a refusal.
 * @param {string} address
 */
export const withoutRefusal = address => address.replace(/([?&])login=[a-z]*(&|$)/, (_, before, after) => (after === "&" ? before : ""));
