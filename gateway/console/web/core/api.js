/**
 * Every call of the console to the platform: the public HTTP API, with the cookie of the session. No other module calls
 * `fetch`, but `feed.js`, which reads the log.
 *
 * It adds to each call what it needs: the moment that is shown (`at`), the position of the last own write or event, so
 * that a page never shows less than its user knows, the proof against calls of other sites, and a key by which a repeated command
 * is the same command.
 */

import {FRESH, TRAVELS} from "./calls.js";
import {Problem, problemOf, unreachable} from "./problem.js";
import {queryOf} from "./router.js";

/** @typedef {import("./router.js").Query} Query */

/** How often a call is sent again that the platform could not answer now. */
const TRIES = 3;
/** The largest page of a list. */
const PAGE = 500;

export class Api {
  /** The moment that is shown: a position or a time; null for now. @type {string | null} */
  at = null;
  /** The proof of the session for calls that change something; null without a session. @type {string | null} */
  csrf = null;
  /** Whether a read had to show what is now, although another moment is shown: the gateway does not know its past. */
  present = false;
  /** The newest position that an answer named. */
  position = 0;
  /** The position that reads have to reflect: of the newest own write, or of the newest event that the page knows. */
  #known = 0;
  #lost = false;

  /**
   * @param {{lost: (problem: Problem) => void, waiting: (words: string | null) => void}} told
   *   `lost`: the session has ended; it is called once. `waiting`: why a call takes longer; null when it goes on.
   */
  constructor(told) {
    this.told = told;
  }

  /** A session has begun: its end is worth telling again. @param {string | null} csrf */
  begun(csrf) {
    this.csrf = csrf;
    this.#lost = false;
  }

  /** The page has got an event: reads reflect it from now on. @param {number} position */
  follow(position) {
    this.position = Math.max(this.position, position);
    this.#known = Math.max(this.#known, position);
  }

  /**
   * A read. Raises Problem; an AbortError if `signal` says so.
   * @template T
   * @param {string} path such as `/v1/projects/web`
   * @param {Query} query
   * @param {{signal?: AbortSignal | undefined, now?: boolean}} how `now`: what is, whatever moment is shown
   * @returns {Promise<T>}
   */
  async get(path, query = {}, {signal, now = false} = {}) {
    const more = {...query, ...(now ? this.#fresh(path) : this.#moment(path))};
    const response = await this.#patient(() => this.#sent("GET", path + queryOf(more), {signal}), signal);
    const kind = response.headers.get("Content-Type") ?? "";
    return /** @type {T} */ (kind.includes("json") ? await response.json() : await response.text());
  }

  /**
   * What a guest has written, from a place on; it waits for more. Raises Problem; an AbortError if `signal` says so.
   * @param {string} path
   * @param {Query} query
   * @param {AbortSignal} signal
   * @returns {Promise<{bytes: Uint8Array, cursor: string | null, more: boolean}>} `cursor`: what follows is after it
   */
  async bytes(path, query, signal) {
    const response = await this.#patient(() => this.#sent("GET", path + queryOf({...query, ...this.#fresh(path)}), {signal}), signal);
    const {headers} = response;
    return {bytes: new Uint8Array(await response.arrayBuffer()), cursor: headers.get("Nebula-Cursor"), more: headers.get("Nebula-More") === "true"};
  }

  /**
   * All pages of a list, one after the other. `onPage` gets the items of each; it may return false to stop.
   * @template T
   * @param {string} path
   * @param {Query} query
   * @param {(items: T[], position: number) => boolean | void} onPage
   * @param {{signal?: AbortSignal | undefined, limit?: number, now?: boolean}} how
   */
  async pages(path, query, onPage, {signal, limit = PAGE, now = false} = {}) {
    /** @type {string | null} */
    let token = null;
    do {
      /** @type {ListOf<T>} */
      const page = await this.get(path, {...query, limit, page_token: token}, {signal, now});
      if (onPage(page.items, page.position) === false) return;
      token = page.next_page_token;
    } while (token !== null);
  }

  /**
   * A command. Raises Problem. `key`: the same key with the same body is the same command, however often it is sent.
   * @template R
   * @param {string} method
   * @param {string} path
   * @param {unknown} body
   * @param {{key?: string, wait?: number, signal?: AbortSignal}} how `wait`: seconds for the operation to end
   * @returns {Promise<{operation: Operation, resource: R, position: number, others: Record<string, unknown>}>}
   */
  async send(method, path, body = null, {key = crypto.randomUUID(), wait = 0, signal} = {}) {
    if (this.at !== null) throw new Problem(0, "in_the_past", "you look at the past: go back to now to change something");
    /** @type {Record<string, string>} */
    const headers = {"Idempotency-Key": key};
    if (this.csrf !== null) headers["X-CSRF-Token"] = this.csrf;
    if (body !== null) headers["Content-Type"] = "application/json";
    const address = path + queryOf({wait: wait > 0 ? `${wait}s` : null});
    const sent = {headers, body: body === null ? null : JSON.stringify(body), signal};
    const response = await this.#patient(() => this.#sent(method, address, sent), signal);
    const answer = await response.json();
    const {operation, position, ...others} = answer;
    this.#known = Math.max(this.#known, position ?? 0);
    return {operation, resource: /** @type {R} */ (Object.values(others)[0] ?? null), position, others};
  }

  /**
   * A question that has a body, and changes nothing. Raises Problem.
   * @template T
   * @param {string} path
   * @param {unknown} body
   * @param {AbortSignal} [signal]
   * @returns {Promise<T>}
   */
  async ask(path, body, signal) {
    /** @type {Record<string, string>} */
    const headers = {"Content-Type": "application/json"};
    if (this.csrf !== null) headers["X-CSRF-Token"] = this.csrf;
    const response = await this.#patient(() => this.#sent("POST", path, {headers, body: JSON.stringify(body), signal}), signal);
    return response.json();
  }

  /**
   * The first page of a list as it is now, for the frame: nobody is told if the session has ended. Raises Problem.
   * @template T
   * @param {string} path
   * @returns {Promise<ListOf<T>>}
   */
  async list(path) {
    const response = await this.#patient(() => this.#sent("GET", path + queryOf({limit: PAGE, ...this.#fresh(path)}), {quiet: true}), undefined);
    return response.json();
  }

  /**
   * A call about the session itself. Raises Problem.
   * @template T
   * @param {string} method
   * @param {string} path
   * @param {Record<string, string>} headers
   * @returns {Promise<T>}
   */
  async call(method, path, headers = {}) {
    const sent = {...headers};
    if (method !== "GET" && this.csrf !== null) sent["X-CSRF-Token"] = this.csrf;
    const response = await this.#sent(method, path, {headers: sent, quiet: true});
    return response.json();
  }

  /** @param {string} path */
  #fresh(path) {
    return this.#known > 0 && FRESH.some(known => known.test(path)) ? {min_position: this.#known} : {};
  }

  /** @param {string} path @returns {Query} */
  #moment(path) {
    if (this.at === null) return this.#fresh(path);
    if (TRAVELS.some(known => known.test(path))) return {at: this.at};
    this.present = true;
    return {};
  }

  /**
   * @param {string} method
   * @param {string} address
   * @param {{headers?: Record<string, string>, body?: string | null, signal?: AbortSignal | undefined, quiet?: boolean}} more
   */
  async #sent(method, address, {headers = {}, body = null, signal, quiet = false}) {
    let response;
    try {
      response = await fetch(address, {method, headers, body, signal: signal ?? null, credentials: "same-origin"});
    } catch (error) {
      if (signal?.aborted) throw error;
      throw unreachable();
    }
    this.position = Math.max(this.position, Number(response.headers.get("Nebula-Position") ?? 0));
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status === 401 && !quiet && !this.#lost) {
      this.#lost = true;
      this.told.lost(problem);
    }
    throw problem;
  }

  /**
   * Send a call again while the platform says that it cannot answer now, and say so.
   * @param {() => Promise<Response>} call
   * @param {AbortSignal | undefined} signal
   */
  async #patient(call, signal) {
    for (let tries = 1; ; tries += 1) {
      try {
        const response = await call();
        if (tries > 1) this.told.waiting(null);
        return response;
      } catch (error) {
        const again = error instanceof Problem && error.status === 503 && error.retryAfter !== null;
        if (!again || tries > TRIES || signal?.aborted) {
          if (tries > 1) this.told.waiting(null);
          throw error;
        }
        const seconds = Math.min(10, Math.max(0.5, error.retryAfter ?? 1));
        this.told.waiting(`${error.detail} (trying again in ${seconds} s)`);
        await new Promise(resolve => setTimeout(resolve, seconds * 1000));
      }
    }
  }
}

/**
 * Whether an error only says that nobody waits for the answer any more.
 * @param {unknown} error
 */
export const aborted = error => error instanceof DOMException && error.name === "AbortError";
