/** The page that is shown: its life from the address to the last rendering. */

import {aborted} from "./api.js";
import {Pace} from "./pace.js";
import {asProblem} from "./problem.js";

/** The least milliseconds between two readings of a page that the log has changed. */
const PACE = 250;
/** How many events a reading may miss; after more, the page is read again. */
const MOST = 1000;

/**
 * @typedef {object} Shown what there is to render
 * @property {PageEntry | null} entry null: no page has this address
 * @property {Page | null} page
 * @property {Context | null} context
 * @property {unknown} data
 * @property {import("./problem.js").Problem | null} problem
 * @property {boolean} loading
 * @property {boolean} present whether some of it is what is now, although another moment is shown
 */

export class Stage {
  /** @type {Shown} */
  shown = {entry: null, page: null, context: null, data: undefined, problem: null, loading: false, present: false};
  #abort = new AbortController();
  /** Counts readings: the answer of an older one is dropped. */
  #reading = 0;
  #address = "";
  /** The events since the present reading began: what it read may be older than they are. @type {LogEvent[] | null} */
  #since = null;
  #pace = new Pace(() => this.read(), PACE);

  /**
   * @param {object} about
   * @param {() => void} about.render
   * @param {(params: Record<string, string>, query: Record<string, string>, signal: AbortSignal) => Context} about.context
   */
  constructor({render, context}) {
    this.render = render;
    this.context = context;
  }

  /**
   * Show a page. The same page with another query is only rendered again, unless it says that it reads by its query.
   * @param {PageEntry | null} entry
   * @param {string} path
   * @param {Record<string, string>} params
   * @param {Record<string, string>} query
   */
  async open(entry, path, params, query) {
    const {at = "", ...others} = query;
    const address = `${path} ${at}${this.shown.page?.reads ? JSON.stringify(others) : ""}`;
    const {page, context} = this.shown;
    if (page !== null && context !== null && entry === this.shown.entry && address === this.#address) {
      context.query = query;
      this.render();
      return;
    }
    const same = page !== null && entry === this.shown.entry && path === this.#address.split(" ", 1)[0];
    this.#leave();
    this.#address = address;
    const next = this.context(params, query, this.#abort.signal);
    this.shown = {entry, page: same ? page : null, context: next, data: same ? this.shown.data : undefined, problem: null, loading: entry !== null, present: false};
    this.render();
    this.#since = [];
    if (entry === null) return;
    const mine = this.#abort.signal;
    try {
      const {page: module} = await entry.module();
      if (mine.aborted) return;
      this.shown.page = module;
      this.#address = `${path} ${at}${module.reads ? JSON.stringify(others) : ""}`;
    } catch (error) {
      if (mine.aborted) return;
      console.error(error);
      this.shown.problem = asProblem(new Error("a part of the console cannot be loaded; it may have been updated: reload the page"));
      this.shown.loading = false;
      this.render();
      return;
    }
    await this.read();
  }

  /** The keys of the page. */
  get keys() {
    const {page, context, data} = this.shown;
    return page?.keys && context !== null && data !== undefined ? page.keys(context, /** @type {never} */ (data)) : [];
  }

  /** Read what the page shows, again. What is shown stays until the answer is there. */
  async read() {
    const {page, context} = this.shown;
    if (page === null || context === null) return;
    const mine = (this.#reading += 1);
    const {signal} = context;
    this.#since ??= [];
    context.api.present = false;
    try {
      const data = page.load ? await page.load(context, /** @type {never} */ (this.shown.data)) : null;
      if (signal.aborted || mine !== this.#reading) return;
      Object.assign(this.shown, {data, problem: null, loading: false, present: context.api.present});
      this.#caughtUp();
    } catch (error) {
      if (signal.aborted || mine !== this.#reading || aborted(error)) return;
      this.#since = null;
      Object.assign(this.shown, {problem: asProblem(error), loading: false});
    }
    this.render();
  }

  /** Read again: without delay at first, and at most a few times a second, however often it is said. */
  refresh() {
    this.#pace.soon();
  }

  /**
   * Events of the log, for the page.
   * @param {LogEvent[]} events
   */
  live(events) {
    const {context} = this.shown;
    if (context === null || context.at !== null) return;
    this.#since?.push(...events);
    this.#tell(events);
  }

  /** @param {LogEvent[]} events */
  #tell(events) {
    const {page, context, data} = this.shown;
    if (!page?.live || context === null || data === undefined) return;
    for (const event of events) page.live(event, context, /** @type {never} */ (data));
  }

  /** A reading has ended: its page gets the events that came meanwhile. */
  #caughtUp() {
    const missed = this.#since ?? [];
    this.#since = null;
    if (missed.length > MOST) this.refresh();
    else this.#tell(missed);
  }

  #leave() {
    this.#pace.stop();
    this.#reading += 1;
    this.#abort.abort();
    this.#abort = new AbortController();
  }

  /** Show no page. */
  close() {
    this.#leave();
    this.#address = "";
    this.shown = {entry: null, page: null, context: null, data: undefined, problem: null, loading: false, present: false};
  }
}
