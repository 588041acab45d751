/** The hosts of the overview: how much of each is promised to VMs, and how much is in use. */

import {html, nothing} from "../core/html.js";
import {bytes, counted, gib, mib} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {badge, meter} from "../parts/badge.js";
import {MOST_NODES} from "./overview-now.js";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

/**
 * @param {NodeView[]} nodes
 * @param {Map<string, import("./overview-now.js").Used> | null} used null: it is of the past, when nobody knows it
 */
export const hosts = (nodes, used) => html`
  <section class="card wide" aria-labelledby="nodes">
    <h2 id="nodes">${counted(nodes.length, "node")}</h2>
    <div class="hosts">${nodes.slice(0, MOST_NODES).map(node => host(node, used?.get(node.id) ?? null))}</div>
    ${nodes.length > MOST_NODES ? html`<p class="small">${link("/nodes", {}, `and ${nodes.length - MOST_NODES} more`)}</p>` : nothing}
  </section>
`;

/**
 * @param {NodeView} node
 * @param {import("./overview-now.js").Used | null} used
 */
function host({id, status, vms, virt_type: type, reserved, capacity}, used) {
  const {cpu = null, memory = null, disk = null} = used ?? {};
  return html`
    <article class="host">
      <h3>${linkTo("node", null, id)} ${badge(status)}</h3>
      <p class="small">${counted(vms, "VM")}, ${type}</p>
      ${fill("CPU", reserved.vcpus, capacity.vcpus, String, cpu, cpu?.toFixed(1))}
      ${fill("Memory", reserved.memory_mib, capacity.memory_mib, mib, memory === null ? null : memory / MIB, bytes(memory))}
      ${fill("Disk", reserved.disk_gib, capacity.disk_gib, gib, disk === null ? null : disk / GIB, bytes(disk))}
    </article>
  `;
}

/**
 * What is promised of something, and what is used: two bars, the second one only if it is known.
 * @param {string} label
 * @param {number} promised
 * @param {number} total
 * @param {(value: number) => string} text
 * @param {number | null} used in the same unit
 * @param {string | undefined} inWords
 */
const fill = (label, promised, total, text, used, inWords) =>
  meter(label, promised, total, `${text(promised)} of ${text(total)} promised${used === null ? "" : `, ${inWords} used`}`, used);
