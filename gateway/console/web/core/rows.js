/**
 * A list of the platform in memory, kept up to date: read page by page, then row by row as the log says that one has
 * changed. Of each row only what `keep` returns is kept.
 */

import {aborted} from "./api.js";
import {Problem} from "./problem.js";

/** The least milliseconds between two looks at what has changed. */
const PACE = 250;
/**
 * How many changed rows are read one by one, those that are seen first. For more, the whole list is read again: at most
 * every few seconds, and at most a tenth of the time.
 */
const FEW = 12;
const WHOLE = 3000;
const SHARE = 10;

/**
 * @template {{id: string}} Item an item of the list, as the API has it
 * @template {{id: string}} Row
 */
export class Rows {
  /** @type {Map<string, Row>} */ #rows = new Map();
  /** The paths of items that have changed, by their ids. @type {Map<string, string>} */ #noted = new Map();
  /** @type {ReturnType<typeof setTimeout> | null} */ #alarm = null;
  #readAt = 0;
  /** Milliseconds that the last reading of the whole list took. */
  #took = 0;
  /** How many readings go on. A row that was read alone is newer than that of a list which was begun before. */
  #reading = 0;
  /** The ids of the rows that are seen. @type {ReadonlySet<string>} */
  seen = new Set();
  #lookedAt = -Infinity;
  /** Whether all pages are read, or as many as `most` allows. */
  complete = false;
  /** Whether there may be more rows than `most`. */
  more = false;
  /** The rows in the order of the API. @type {Row[]} */
  list = [];
  /** Ends when the last `load` has read all pages, well or not. @type {Promise<unknown>} */
  loaded = Promise.resolve();

  /**
   * @param {object} about
   * @param {import("./api.js").Api} about.api
   * @param {string} about.path of the list; an item is at `<path>/<id>`
   * @param {import("./router.js").Query} [about.query]
   * @param {(item: Item) => Row | null} about.keep null: an item that does not belong to the list (any more)
   * @param {() => void} about.changed called when rows have changed
   * @param {AbortSignal} about.signal ends everything
   * @param {number} [about.most] no further page is read when there are so many rows
   */
  constructor({api, path, query = {}, keep, changed, signal, most = Infinity}) {
    this.api = api;
    this.path = path;
    this.query = query;
    this.keep = keep;
    this.told = changed;
    this.signal = signal;
    this.most = most;
    signal.addEventListener("abort", () => this.#alarm !== null && clearTimeout(this.#alarm));
  }

  /** Read the list. Resolves with its first page; the others follow. Raises Problem for the first page. */
  load() {
    return new Promise((resolve, reject) => {
      const whole = this.#whole(() => resolve(this));
      this.loaded = whole.catch(() => {});
      whole.then(() => resolve(this), reject);
    });
  }

  /** @param {() => void} first called after the first page */
  async #whole(first = () => {}) {
    this.#reading += 1;
    try {
      await this.#pages(first);
    } finally {
      this.#reading -= 1;
    }
  }

  /** @param {() => void} first */
  async #pages(first) {
    /** @type {Map<string, Row>} */
    const found = new Map();
    const fresh = this.#rows.size === 0;
    const began = Date.now();
    let more = false;
    await this.api.pages(
      this.path,
      this.query,
      (/** @type {Item[]} */ items) => {
        for (const item of items) {
          const row = this.keep(item);
          if (row !== null) found.set(row.id, row);
        }
        if (fresh) this.#use(found, false);
        first();
        more = found.size >= this.most;
        return !more;
      },
      {signal: this.signal},
    );
    this.#readAt = Date.now();
    this.#took = this.#readAt - began;
    this.more = more;
    this.#use(found, true);
  }

  /**
   * @param {Map<string, Row>} rows
   * @param {boolean} complete
   */
  #use(rows, complete) {
    this.#rows = rows;
    this.list = [...rows.values()];
    this.complete = complete;
    this.told();
  }

  /** @param {string} id */
  get(id) {
    return this.#rows.get(id);
  }

  /**
   * Say that an item has changed. It is read soon: without delay, if the last look was a while ago.
   * @param {string} id
   * @param {string} path of the item, if it is elsewhere than the list
   */
  note(id, path = `${this.path}/${encodeURIComponent(id)}`) {
    this.#noted.set(id, path);
    this.#plan(Math.max(0, this.#lookedAt + PACE - performance.now()));
  }

  /** @param {number} milliseconds */
  #plan(milliseconds) {
    if (this.#alarm !== null || this.signal.aborted) return;
    this.#alarm = setTimeout(() => {
      this.#alarm = null;
      void this.#look();
    }, milliseconds);
  }

  async #look() {
    if (!this.complete || this.#reading > 0) {
      if (this.#noted.size > 0) this.#plan(PACE);
      return;
    }
    const whole = this.#noted.size > FEW && Date.now() - this.#readAt >= Math.max(WHOLE, SHARE * this.#took);
    const all = [...this.#noted];
    const taken = whole ? all : [...all.filter(([id]) => this.seen.has(id)), ...all.filter(([id]) => !this.seen.has(id))].slice(0, FEW);
    for (const [id] of taken) this.#noted.delete(id);
    this.#reading += 1;
    this.#lookedAt = performance.now();
    try {
      if (whole) await this.#whole();
      else await Promise.all(taken.map(([id, path]) => this.#one(id, path)));
    } catch (error) {
      if (!aborted(error)) this.#plan(WHOLE); // what is shown is then older; the next event leads here again
      for (const [id, path] of taken) this.#noted.set(id, path);
      return;
    } finally {
      this.#reading -= 1;
    }
    if (this.#noted.size > 0) this.#plan(PACE);
    this.list = [...this.#rows.values()];
    this.told();
  }

  /**
   * @param {string} id
   * @param {string} path
   */
  async #one(id, path) {
    try {
      const item = /** @type {Item} */ (await this.api.get(path, {}, {signal: this.signal}));
      const row = this.keep(item);
      if (row === null) this.#rows.delete(id);
      else this.#rows.set(id, row);
    } catch (error) {
      if (!(error instanceof Problem) || (error.status !== 404 && error.status !== 410)) throw error;
      this.#rows.delete(id);
    }
  }
}
