/**
 * The log as it grows, read by one connection: from an exact position, resumed exactly, and checked for gaps.
 * It runs in a worker that all tabs share, or in the page where a browser has no such workers. It knows no page.
 */

import {parsed, problemOf} from "./problem.js";
import {parser} from "./sse.js";

/** Milliseconds of silence after which a connection counts as lost: a feed says every 15 s that it is alive. */
const SILENCE = 25_000;
/** Milliseconds between two tries, at first and at most. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;
/** Milliseconds that an event may be old when it arrives, before the feed counts as behind. */
const OLD = 10_000;

/**
 * @typedef {object} LiveState
 * @property {"off" | "connecting" | "live" | "behind" | "lost" | "ended"} name
 * @property {string} [words] why it is lost, or has ended
 * @property {number} [since] milliseconds since 1970
 * @property {number} [next] when it is tried again, milliseconds since 1970
 */

/** The feed was cut because an event is missing. */
class Gap extends Error {}

/** The feed has ended for its reader. */
class Ended extends Error {}

export class Feed {
  #abort = new AbortController();
  /** Ends a pause early. @type {() => void} */
  #now = () => {};
  /** Where to resume: of the newest event, or of the newest comment. */
  position = 0;

  /**
   * @param {number} after the position after which to begin
   * @param {{events: (batch: LogEvent[]) => void, state: (state: LiveState) => void, missed: () => void}} told
   *   `missed`: events were lost for good, which a correct gateway never does: read everything again.
   * @param {string} path
   */
  constructor(after, told, path = "/v1/feed") {
    this.position = after;
    this.told = told;
    this.path = path;
  }

  stop() {
    this.#abort.abort();
    this.#now();
  }

  /** Try again without waiting. */
  again() {
    this.#now();
  }

  /** Read until the reader is no longer welcome, or `stop`. It never fails. */
  async run() {
    let pause = FIRST_PAUSE;
    let since = Date.now();
    let gaps = 0;
    this.told.state({name: "connecting"});
    while (!this.#abort.signal.aborted) {
      const began = this.position;
      try {
        await this.#read(() => {
          pause = FIRST_PAUSE;
          since = Date.now();
        });
      } catch (error) {
        if (this.#abort.signal.aborted) return;
        if (error instanceof Ended) {
          this.told.state({name: "ended", words: error.message});
          return;
        }
        gaps = error instanceof Gap && this.position === began ? gaps + 1 : 0;
        if (gaps > 1) this.told.missed();
        const words = error instanceof Error ? error.message : String(error);
        this.told.state({name: "lost", words, since, next: Date.now() + pause});
      }
      await this.#wait(pause * (0.75 + Math.random() / 2));
      pause = Math.min(LONGEST_PAUSE, pause * 2);
    }
  }

  /** @param {() => void} arrived called when the connection is there */
  async #read(arrived) {
    const connection = new AbortController();
    const stop = () => connection.abort();
    this.#abort.signal.addEventListener("abort", stop);
    let alarm = setTimeout(stop, SILENCE);
    try {
      const headers = {"Last-Event-ID": String(this.position), Accept: "text/event-stream"};
      const sent = {headers, signal: connection.signal, credentials: /** @type {const} */ ("same-origin")};
      const response = await fetch(this.path, sent);
      if (!response.ok || response.body === null) await refused(response);
      arrived();
      this.told.state({name: "live"});
      const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
      const decoder = new TextDecoder();
      const parse = parser();
      let previous = this.position;
      for (;;) {
        const {done, value} = await reader.read();
        clearTimeout(alarm);
        if (done) throw new Error("the gateway has closed the connection");
        alarm = setTimeout(stop, SILENCE);
        previous = this.#take(parse(decoder.decode(value, {stream: true})), previous);
      }
    } catch (error) {
      if (connection.signal.aborted && !this.#abort.signal.aborted) throw new Error("the connection is silent");
      if (error instanceof TypeError) throw new Error("the gateway does not answer");
      throw error;
    } finally {
      clearTimeout(alarm);
      this.#abort.signal.removeEventListener("abort", stop);
      connection.abort();
    }
  }

  /**
   * @param {import("./sse.js").Frame[]} frames
   * @param {number} previous the position of the event before them in this feed
   * @returns {number} that of the last one
   */
  #take(frames, previous) {
    /** @type {LogEvent[]} */
    const batch = [];
    let last = previous;
    /** @type {Error | null} */
    let wrong = null;
    for (const frame of frames) {
      const ended = /^ended: (\S+)/.exec(frame.comment);
      if (ended) wrong = new Ended(ended[1]);
      const id = Number(frame.id ?? Number.NaN);
      if (frame.data === "") {
        if (Number.isSafeInteger(id)) this.position = Math.max(this.position, id);
        if (frame.comment === "alive") this.told.state({name: "live"});
        continue;
      }
      const event = slim(JSON.parse(frame.data));
      if (event.prev !== last) {
        wrong = new Gap(`an event between ${last} and ${event.position} is missing`);
        break;
      }
      batch.push(event);
      last = event.position;
      this.position = Math.max(this.position, last);
    }
    const newest = batch.at(-1);
    if (newest !== undefined) {
      const behind = Date.now() - Date.parse(newest.time) > OLD;
      this.told.events(batch);
      this.told.state({name: behind ? "behind" : "live"});
    }
    if (wrong) throw wrong;
    return last;
  }

  /** @param {number} milliseconds */
  #wait(milliseconds) {
    return new Promise(resolve => {
      const alarm = setTimeout(() => resolve(undefined), milliseconds);
      this.#now = () => {
        clearTimeout(alarm);
        resolve(undefined);
      };
    });
  }
}

/**
 * Raises what an answer without a feed means.
 * @param {Response} response
 * @returns {Promise<never>}
 */
async function refused(response) {
  const problem = response.ok ? parsed(response.status, "") : await problemOf(response);
  if (problem.status === 401 || problem.status === 403) throw new Ended(problem.detail);
  throw new Error(problem.detail);
}

/**
 * An event as pages use it, of its CloudEvent.
 * @param {CloudEvent} event
 * @returns {LogEvent}
 */
function slim(event) {
  const [, , project = "", kind = "", id = ""] = event.subject.split(".");
  return {
    position: event.position,
    prev: event.prev ?? 0,
    type: event.type.slice(event.type.lastIndexOf(".") + 1),
    project,
    kind,
    id,
    time: event.time ?? "",
    actor: event.actor ?? "",
    operation: event.operationid ?? null,
    data: event.data ?? {},
  };
}
