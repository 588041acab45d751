/** The projects that the user may see, as they are now. */

import {Pace} from "./pace.js";
import {asProblem} from "./problem.js";

/** The least milliseconds between two readings. */
const PACE = 50;

export class Projects {
  /** @type {ProjectView[]} */ items = [];
  /** @type {Promise<void> | null} */ #first = null;
  #pace = new Pace(() => this.#read(), PACE);

  /**
   * @param {import("./api.js").Api} api
   * @param {{changed: () => void, refused: (words: string) => void}} told
   */
  constructor(api, told) {
    this.api = api;
    this.told = told;
  }

  /**
   * The projects, as soon as they have been read once. It does not fail: without an answer there are none.
   * @returns {Promise<ProjectView[]>}
   */
  async known() {
    this.#first ??= this.#read();
    await this.#first;
    return this.items;
  }

  /** Read them again. */
  refresh() {
    this.#pace.soon();
  }

  /** Nobody is signed in. */
  forget() {
    this.#pace.stop();
    this.#first = null;
    this.items = [];
  }

  async #read() {
    try {
      /** @type {ListOf<ProjectView>} */
      const {items} = await this.api.list("/v1/projects");
      this.items = items;
    } catch (error) {
      const {status, detail} = asProblem(error);
      if (status === 401) this.#first = null;
      else if (status !== 403) this.told.refused(detail); // without a role, there are none
    }
    this.told.changed();
  }
}
