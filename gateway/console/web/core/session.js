/** Signing in and out. The token is sent once and not kept: from then on the browser has a cookie that no script can read. */

import {Me} from "./me.js";
import {Problem} from "./problem.js";

/** @typedef {import("./api.js").Api} Api */

/**
 * Who is signed in; null if nobody is.
 * @param {Api} api
 * @returns {Promise<Me | null>}
 */
export async function whoAmI(api) {
  try {
    /** @type {MeView} */
    const view = await api.call("GET", "/v1/me");
    return new Me(view, await proof(api));
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return null;
    throw error;
  }
}

/**
 * Take the proof of the session, for calls that change something.
 * @param {Api} api
 * @returns {Promise<boolean>} false if callers need no token, so that there is no session
 */
async function proof(api) {
  try {
    /** @type {{csrf: string}} */
    const {csrf} = await api.call("GET", "/v1/session");
    api.begun(csrf);
    return true;
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 404) throw error;
    api.begun(null);
    return false;
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
  try {
    await api.call("DELETE", "/v1/session");
  } catch (error) {
    if (!(error instanceof Problem) || (error.status !== 401 && error.status !== 404)) throw error;
  }
}
