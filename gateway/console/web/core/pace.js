/** Something that is done again whenever somebody says so: without delay at first, later at most once in a while, and never twice at the same time. */

export class Pace {
  /** @type {ReturnType<typeof setTimeout> | null} */ #alarm = null;
  #busy = false;
  /** Whether it was said again since it began. */
  #again = false;
  #began = -Infinity;

  /**
   * @param {() => Promise<void>} act it does not fail
   * @param {number} milliseconds the least time between two beginnings
   */
  constructor(act, milliseconds) {
    this.act = act;
    this.milliseconds = milliseconds;
  }

  /** Do it soon. What is being done now may be too old to count, so it is done once more after that. */
  soon() {
    if (this.#busy) {
      this.#again = true;
      return;
    }
    if (this.#alarm !== null) return;
    const wait = Math.max(0, this.#began + this.milliseconds - performance.now());
    this.#alarm = setTimeout(() => void this.#act(), wait);
  }

  /** Forget what was said. */
  stop() {
    if (this.#alarm !== null) clearTimeout(this.#alarm);
    this.#alarm = null;
    this.#again = false;
  }

  async #act() {
    this.#alarm = null;
    this.#busy = true;
    this.#began = performance.now();
    try {
      await this.act();
    } finally {
      this.#busy = false;
      if (this.#again) {
        this.#again = false;
        this.soon();
      }
    }
  }
}
