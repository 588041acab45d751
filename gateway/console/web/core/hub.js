/** One feed for several tabs. Each tab has a port; it gets the events after the position that it names. */

import {Feed} from "./feed.js";

/** How many events are kept for tabs that come later. */
const KEPT = 4096;

/**
 * @typedef {{join: number} | {again: true} | {leave: true} | {end: true}} ToHub
 *   `join`: the position after which the tab wants events. `end`: the session has been ended; all tabs are told.
 * @typedef {{events?: LogEvent[], state?: import("./feed.js").LiveState, missed?: true}} FromHub
 */

export class Hub {
  /** @type {Set<MessagePort>} */ #ports = new Set();
  /** @type {LogEvent[]} */ #kept = [];
  /** The position after which `#kept` has every event. */
  #since = 0;
  /** @type {Feed | null} */ #feed = null;
  /** @type {import("./feed.js").LiveState} */ #state = {name: "off"};

  /** @param {MessagePort} port */
  add(port) {
    port.onmessage = ({data}) => this.#take(port, data);
  }

  /**
   * @param {MessagePort} port
   * @param {ToHub} message
   */
  #take(port, message) {
    if ("join" in message) this.#join(port, message.join);
    else if ("again" in message) this.#feed?.again();
    else if ("leave" in message) this.#leave(port);
    else this.#end();
  }

  /**
   * @param {MessagePort} port
   * @param {number} after
   */
  #join(port, after) {
    this.#ports.add(port);
    if (this.#feed === null || this.#state.name === "ended") this.#begin(after);
    if (after < this.#since) tell(port, {missed: true});
    const newer = this.#kept.filter(event => event.position > after);
    if (newer.length > 0) tell(port, {events: newer});
    tell(port, {state: this.#state});
  }

  /** @param {number} after */
  #begin(after) {
    this.#feed?.stop();
    this.#kept = [];
    this.#since = after;
    const feed = new Feed(after, {
      events: batch => {
        if (feed !== this.#feed) return;
        this.#keep(batch);
        this.#all({events: batch});
      },
      state: state => {
        if (feed !== this.#feed || (state.name === this.#state.name && state.name !== "lost")) return;
        this.#state = state;
        this.#all({state});
      },
      missed: () => this.#all({missed: true}),
    });
    this.#feed = feed;
    void feed.run();
  }

  /** @param {LogEvent[]} batch */
  #keep(batch) {
    this.#kept.push(...batch);
    if (this.#kept.length > KEPT) {
      const dropped = this.#kept.splice(0, this.#kept.length - KEPT);
      this.#since = dropped.at(-1)?.position ?? this.#since;
    }
  }

  /** @param {MessagePort} port */
  #leave(port) {
    this.#ports.delete(port);
    if (this.#ports.size > 0) return;
    this.#feed?.stop();
    this.#feed = null;
    this.#state = {name: "off"};
  }

  #end() {
    this.#feed?.stop();
    this.#feed = null;
    this.#state = {name: "ended", words: "signed out"};
    this.#all({state: this.#state});
  }

  /** @param {FromHub} message */
  #all(message) {
    for (const port of this.#ports) tell(port, message);
  }
}

/**
 * @param {MessagePort} port
 * @param {FromHub} message
 */
const tell = (port, message) => port.postMessage(message);
