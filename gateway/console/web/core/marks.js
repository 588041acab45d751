/** What the slider shows of the log: where how much happened. It is read again while the log grows. */

/** Milliseconds between two readings. */
const PAUSE = 10_000;
/** The most ranges of positions that are shown. */
const MOST = 200;

/** @typedef {{first: number, time: string, events: number, failures: number}} Mark as `GET /v1/marks` has it */

export class Marks {
  /** Without any, the slider is a plain line. @type {Mark[]} */ items = [];
  /** The position of the log when they were read. */
  #position = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #alarm;

  /**
   * @param {import("./api.js").Api} api
   * @param {() => void} changed
   * @param {() => boolean} allowed whether they can be read, and the user may
   */
  constructor(api, changed, allowed) {
    this.allowed = allowed;
    this.api = api;
    this.changed = changed;
  }

  /** Read them now, and from time to time. */
  async start() {
    this.stop();
    if (this.allowed() && this.api.position !== this.#position && !document.hidden) {
      this.#position = this.api.position;
      try {
        /** @type {ListOf<Mark>} */
        const {items} = await this.api.get("/v1/marks", {buckets: MOST}, {now: true});
        this.items = items;
      } catch {
        this.items = [];
      }
      this.changed();
    }
    this.stop();
    this.#alarm = setTimeout(() => void this.start(), PAUSE);
  }

  stop() {
    clearTimeout(this.#alarm);
  }
}
