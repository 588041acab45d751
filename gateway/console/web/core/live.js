/** The log as it grows, for a page: events in batches, one for each frame of the screen, and the state of the connection. */

import {Hub} from "./hub.js";

/** How many events a page takes in one frame; more wait for the next one. */
const BATCH = 100;
/** How many may wait before the page reads everything again, which is then cheaper. */
const MOST = 5000;

/** @typedef {import("./feed.js").LiveState} LiveState */

/** The address of the worker is ours, and never made of a value of the platform. */
const policy = /** @type {{trustedTypes?: TrustedPolicies}} */ (/** @type {unknown} */ (globalThis)).trustedTypes?.createPolicy("nebula", {
  createScriptURL: url => url,
});

export class Live {
  /** @type {LiveState} */ state = {name: "off"};
  /** @type {MessagePort | null} */ #port = null;
  /** @type {LogEvent[]} */ #queue = [];
  #planned = false;
  #position = 0;
  /** @type {Set<(events: LogEvent[]) => void>} */ #followers = new Set();

  /**
   * @param {{state: (state: LiveState) => void, missed: () => void}} told
   *   `missed`: pages have to read everything again.
   */
  constructor(told) {
    this.told = told;
    window.addEventListener("pagehide", () => this.#port?.postMessage({leave: true}));
    window.addEventListener("pageshow", event => {
      if (event.persisted) this.#port?.postMessage({join: this.#position});
    });
    window.addEventListener("online", () => this.again());
  }

  /**
   * Follow the log.
   * @param {string} principal whose feed it is: tabs of another user have another one
   * @param {number} after the position that the page has read
   */
  start(principal, after) {
    this.stop();
    this.#position = after;
    this.#port = port(principal);
    this.#port.onmessage = ({data}) => this.#take(data);
    this.#port.postMessage({join: after});
  }

  /** Stop following. `ended`: the session has ended, also for other tabs. */
  stop(ended = false) {
    this.#port?.postMessage(ended ? {end: true} : {leave: true});
    this.#port?.close();
    this.#port = null;
    this.#queue = [];
    this.state = {name: "off"};
  }

  /** Try again now. */
  again() {
    this.#port?.postMessage({again: true});
  }

  /**
   * Call a function with each batch of events.
   * @param {(events: LogEvent[]) => void} follower
   * @returns {() => void} ends it
   */
  on(follower) {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  /** @param {import("./hub.js").FromHub} message */
  #take({events, state, missed}) {
    if (missed) this.#drop();
    if (events) {
      // A tab that was hidden for long gets all of it at once.
      for (const event of events) if (event.position > this.#position) this.#queue.push(event);
      this.#position = Math.max(this.#position, events.at(-1)?.position ?? 0);
      if (this.#queue.length > MOST) this.#drop();
      else this.#plan();
    }
    if (state) {
      this.state = state;
      this.told.state(state);
    }
  }

  #drop() {
    this.#queue = [];
    this.told.missed();
  }

  #plan() {
    if (this.#planned || this.#queue.length === 0) return;
    this.#planned = true;
    const flush = () => {
      this.#planned = false;
      const batch = this.#queue.splice(0, BATCH);
      for (const follower of this.#followers) follower(batch);
      this.#plan();
    };
    // A hidden tab has no frames.
    if (document.hidden) setTimeout(flush, 250);
    else requestAnimationFrame(flush);
  }
}

/**
 * A port of the hub of this user: in the worker that tabs share, or in this page where there is none.
 * @param {string} principal
 * @returns {MessagePort}
 */
function port(principal) {
  if (typeof SharedWorker === "undefined") {
    const {port1, port2} = new MessageChannel();
    new Hub().add(port1);
    return port2;
  }
  const url = new URL("./live-worker.js", import.meta.url).href;
  const trusted = /** @type {string} */ (policy?.createScriptURL(url) ?? url);
  return new SharedWorker(trusted, {type: "module", name: `nebula ${principal}`}).port;
}
