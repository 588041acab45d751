/** The columns of the list of VMs. Each but the first can be hidden; this browser remembers which. */

import {html, nothing} from "../../core/html.js";
import {ago, gib, mib} from "../../core/format.js";
import {linkTo} from "../../core/links.js";
import {badge} from "../../parts/badge.js";
import {open} from "../../parts/dialog.js";
import {bigness, sized} from "./model.js";

/** @typedef {import("./model.js").Row} Row */
/** @typedef {import("../../parts/table.js").Column<Row>} Column */

const ORDER = ["running", "paused", "suspended", "stopped", "requested", "scheduled", "unschedulable", "failed", "lost"];
const REMEMBERED = "nebula.columns.vms";
/** Those that are hidden at first. */
const HIDDEN = ["vcpus", "memory", "disk", "flavor"];

/** @param {string[]} texts */
const labelled = texts => (texts.length === 0 ? "–" : texts.map(text => html`<span class="label">${text}</span> `));

/** @type {Column[]} */
const COLUMNS = [
  {name: "name", title: "Name", card: true, by: row => row.name, view: row => linkTo("vm", row.project, row.id, row.name)},
  {
    name: "phase",
    title: "State",
    card: true,
    by: row => ORDER.indexOf(row.phase),
    view: row => html`${badge(row.phase)}${row.pending ? html` <span class="small">${row.pending}…</span>` : row.phase === "running" && !row.ready ? html` <span class="small">not ready</span>` : nothing}`,
  },
  {name: "address", title: "Address", card: true, by: row => row.address, view: row => (row.address ? html`<code>${row.address}</code>` : "–")},
  {name: "project", title: "Project", by: row => row.project, view: row => linkTo("project", null, row.project)},
  {name: "node", title: "Node", by: row => row.node, view: row => (row.node ? linkTo("node", null, row.node) : "–")},
  {name: "image", title: "Image", by: row => row.image, view: row => linkTo("image", null, row.image)},
  {name: "size", title: "Size", by: bigness, view: row => sized(row)},
  {name: "flavor", title: "Flavor", by: row => row.flavor, view: row => (row.flavor ? linkTo("flavor", null, row.flavor) : "–")},
  {name: "vcpus", title: "CPUs", align: "end", by: row => row.vcpus, view: row => row.vcpus},
  {name: "memory", title: "Memory", align: "end", by: row => row.memory, view: row => mib(row.memory)},
  {name: "disk", title: "Disk", align: "end", by: row => row.disk, view: row => gib(row.disk)},
  {name: "tags", title: "Tags", by: row => row.tags.join(" "), view: row => labelled(row.tags)},
  {name: "labels", title: "Labels", by: row => row.labels.join(" "), view: row => labelled(row.labels)},
  {name: "created", title: "Age", by: row => -Date.parse(row.created), view: row => html`<span title=${row.created}>${ago(row.created)}</span>`},
];

/** @returns {string[]} the names of hidden columns */
export function hidden() {
  try {
    const names = JSON.parse(localStorage.getItem(REMEMBERED) ?? "null");
    if (Array.isArray(names)) return COLUMNS.slice(1).map(({name}) => name).filter(name => names.includes(name));
  } catch {
    // what another version has written
  }
  return HIDDEN;
}

/**
 * The columns that are shown.
 * @param {boolean} everywhere whether the list is of several projects
 * @param {readonly string[]} without
 */
export const columns = (everywhere, without) => COLUMNS.filter(({name}) => !without.includes(name) && (everywhere || name !== "project"));

/**
 * Ask which columns are shown.
 * @param {() => void} changed
 */
export const choose = changed =>
  open(
    "Columns",
    dialog => {
      const without = hidden();
      const set = (/** @type {string} */ name, /** @type {boolean} */ shown) => {
        localStorage.setItem(REMEMBERED, JSON.stringify(shown ? without.filter(each => each !== name) : [...without, name]));
        changed();
        dialog.changed();
      };
      return html`
        <div class="dialog-body">
          ${COLUMNS.slice(1).map(
            ({name, title}) => html`
              <label class="field-check"><input type="checkbox" name=${name} .checked=${!without.includes(name)}
                @change=${(/** @type {Event} */ event) => set(name, /** @type {HTMLInputElement} */ (event.target).checked)}> ${title}</label>
            `,
          )}
        </div>
        <footer class="dialog-foot"><button type="button" class="primary" @click=${() => dialog.close()}>Close</button></footer>
      `;
    },
  );
