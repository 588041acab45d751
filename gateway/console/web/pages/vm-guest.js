/** `<nb-guest .model=${…}>`: what the agent in a guest says of it now. */

import {html, nothing, Part} from "../core/html.js";
import {aborted} from "../core/api.js";
import {bytes} from "../core/format.js";
import {asProblem} from "../core/problem.js";
import {facts, meter, refusal} from "../parts/badge.js";

/** @typedef {{api: import("../core/api.js").Api, path: string, state: string}} GuestModel `path`: of the VM in the API. `state`: it is asked again when this changes */

/** @extends {Part<GuestModel>} */
class Guest extends Part {
  /** @type {GuestView | null} */ #guest = null;
  /** @type {import("../core/problem.js").Problem | null} */ #problem = null;
  #busy = false;
  #abort = new AbortController();

  /**
   * @param {GuestModel} model
   * @param {GuestModel | undefined} before
   */
  given(model, before) {
    if (before !== undefined && (before.path !== model.path || before.state !== model.state)) void this.#ask();
  }

  connectedCallback() {
    super.connectedCallback();
    void this.#ask();
  }

  disconnectedCallback() {
    this.#abort.abort();
  }

  async #ask() {
    this.#abort.abort();
    this.#abort = new AbortController();
    const {signal} = this.#abort;
    this.#busy = true;
    this.changed();
    try {
      this.#guest = await this.model.api.get(`${this.model.path}/guest`, {}, {signal});
      this.#problem = null;
    } catch (error) {
      if (aborted(error) || signal.aborted) return;
      this.#guest = null;
      this.#problem = asProblem(error);
    }
    this.#busy = false;
    this.changed();
  }

  view() {
    const guest = this.#guest;
    return html`
      <p class="guest-state">
        <span class="small">The agent in the guest says this, and may be wrong.</span>
        <button type="button" ?disabled=${this.#busy} @click=${() => void this.#ask()}>${this.#busy ? "Asking…" : "Ask again"}</button>
      </p>
      ${this.#problem ? refusal(this.#problem) : nothing} ${guest === null ? nothing : shown(guest)}
    `;
  }
}
customElements.define("nb-guest", Guest);

/** @param {GuestView} guest */
const shown = guest => html`
  <div class="cards">
    <section class="card" aria-labelledby="guest-system">
      <h2 id="guest-system">System</h2>
      ${facts([
        ["Host name", guest.hostname],
        ["System", guest.os?.name ?? guest.os?.id],
        ["Kernel", guest.os?.kernel_release],
        ["Machine", guest.os?.machine],
        ["Time zone", guest.timezone?.name],
      ])}
    </section>
    <section class="card" aria-labelledby="guest-network">
      <h2 id="guest-network">Network</h2>
      ${guest.interfaces === null ? html`<p class="small">It does not say.</p>` : facts(guest.interfaces.map(each => [
        each.name,
        html`${each.addresses.map(({address, prefix}) => html`<div><code class="break">${address}${prefix === null ? "" : `/${prefix}`}</code></div>`)}<span class="small">${each.mac}</span>`,
      ]))}
      ${guest.more_interfaces ? html`<p class="small">and ${guest.more_interfaces} more</p>` : nothing}
    </section>
    <section class="card" aria-labelledby="guest-disks">
      <h2 id="guest-disks">File systems</h2>
      ${guest.filesystems === null ? html`<p class="small">It does not say.</p>` : guest.filesystems.map(({mountpoint, total_bytes: total, used_bytes: used}) =>
        total === null || used === null ? html`<p>${mountpoint}</p>` : meter(mountpoint ?? "–", used, total, `${bytes(used)} of ${bytes(total)}`))}
      ${guest.more_filesystems ? html`<p class="small">and ${guest.more_filesystems} more</p>` : nothing}
    </section>
  </div>
`;
