/** What the overview asks from time to time, since it is not in the log: the health of the platform, what hosts use, tokens that end soon. */

import {Problem, unless} from "../core/problem.js";

/** Milliseconds between two questions. */
const PAUSE = {health: 10_000, usage: 30_000, tokens: 60_000};
/** The most nodes that are shown, and asked what they use. */
export const MOST_NODES = 24;
/** The most tokens that are looked at, and how many milliseconds before its end one is shown. */
const MOST_TOKENS = 2000;
const SOON = 7 * 86_400_000;
/** Answers after which a part is not shown. */
const SILENT = [0, 403, 404, 409, 410, 429, 500, 501, 503];

/** @typedef {{cpu: number | null, memory: number | null, disk: number | null}} Used what a host uses: CPUs, and bytes */

export class Now {
  /** @type {HealthView | null} */ health = null;
  /** By node; a node that does not say it is not there. @type {Map<string, Used>} */ used = new Map();
  /** Those that end soon, the first one first. @type {TokenView[]} */ tokens = [];
  /** The images of the platform, if it was asked: whether there is one. @type {boolean | null} */ images = null;
  /** The nodes that are shown. @type {string[]} */ #nodes = [];
  /** @type {Set<ReturnType<typeof setTimeout>>} */ #alarms = new Set();

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    context.signal.addEventListener("abort", () => {
      for (const alarm of this.#alarms) clearTimeout(alarm);
    });
    this.#often(PAUSE.health, () => this.#readHealth());
    this.#often(PAUSE.tokens, () => this.#readTokens());
    this.#often(PAUSE.usage, () => this.#readUsage());
  }

  /** @param {NodeView[]} nodes */
  show(nodes) {
    const names = nodes.filter(({retired_at: retired}) => retired === null).slice(0, MOST_NODES).map(({id}) => id);
    const others = names.some(name => !this.#nodes.includes(name));
    this.#nodes = names;
    if (others) this.#readUsage().catch(() => {}); // the next turn asks again
  }

  /** Ask whether there is an image, once. */
  async askImages() {
    if (this.images !== null || !this.context.me.mayAnywhere("image.read")) return;
    this.images = true; // until the answer says otherwise
    const {api, signal} = this.context;
    try {
      /** @type {ListOf<ImageView> | null} */
      const found = await unless(api.get("/v1/images", {limit: 1}, {signal}), SILENT);
      this.images = found === null || found.items.length > 0;
      this.context.changed();
    } catch {
      // the page was left
    }
  }

  /**
   * Do something now and again, as long as the page is shown. In a hidden tab it waits.
   * @param {number} pause milliseconds
   * @param {() => Promise<void>} act
   */
  #often(pause, act) {
    const turn = async () => {
      if (!document.hidden) {
        try {
          await act();
        } catch {
          // the next turn asks again; what is shown is older until then
        }
        if (!this.context.signal.aborted) this.context.changed();
      }
      if (this.context.signal.aborted) return;
      const alarm = setTimeout(() => {
        this.#alarms.delete(alarm);
        void turn();
      }, pause);
      this.#alarms.add(alarm);
    };
    void turn();
  }

  async #readHealth() {
    try {
      this.health = await this.context.api.call("GET", "/healthz");
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 503) throw error;
      this.health = /** @type {HealthView} */ ({status: "unavailable", ...error.body});
    }
  }

  async #readTokens() {
    const {api, signal} = this.context;
    /** @type {TokenView[]} */
    const found = [];
    let read = 0;
    await api.pages(
      "/v1/tokens",
      {},
      (/** @type {TokenView[]} */ items) => {
        read += items.length;
        const now = Date.now();
        found.push(...items.filter(({expires_at: end}) => Date.parse(end) > now && Date.parse(end) - now < SOON));
        return read < MOST_TOKENS;
      },
      {signal},
    );
    this.tokens = found.sort((one, other) => Date.parse(one.expires_at) - Date.parse(other.expires_at));
  }

  async #readUsage() {
    const {api, signal} = this.context;
    await Promise.all(
      this.#nodes.map(async node => {
        /** @type {UsageSeriesView | null} */
        const series = await unless(api.get(`/v1/nodes/${encodeURIComponent(node)}/usage`, {since: "5m", points: 5}, {signal}), SILENT);
        const last = series?.points.findLast(point => point.memory_bytes !== null);
        if (last) this.used.set(node, {cpu: last.cpu, memory: last.memory_bytes, disk: last.disk_bytes});
        else this.used.delete(node);
      }),
    );
  }
}
