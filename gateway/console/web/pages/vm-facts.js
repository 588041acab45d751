/** What a VM is, and where: each field of the API has its place here. */

import {html, nothing} from "../core/html.js";
import {ago, counted, gib, mib, moment, words} from "../core/format.js";
import {linkTo, whose} from "../core/links.js";
import {facts} from "../parts/badge.js";
import {copy} from "../parts/command.js";
import {knownHosts} from "./vm-text.js";

/** What a source of addresses is (docs/http-api.md). @type {Record<string, string>} */
const SOURCES = {agent: "the agent in the guest says so", lease: "DHCP gave it", arp: "the host has seen it (ARP)"};

/** @param {VmView} vm */
export const about = vm =>
  facts([
    ["Size", `${vm.vcpus} CPU, ${mib(vm.memory_mib)} memory, ${gib(vm.disk_gib)} disk`],
    vm.pending_resize && vm.running_spec ? ["Runs with", `${vm.running_spec.vcpus} CPU, ${mib(vm.running_spec.memory_mib)}, ${gib(vm.running_spec.disk_gib)} until its next start`] : null,
    ["Image", vm.rescue ? html`${linkTo("image", null, vm.image)}, in rescue from ${linkTo("image", null, vm.rescue)}` : linkTo("image", null, vm.image)],
    vm.flavor ? ["Flavor", linkTo("flavor", null, vm.flavor)] : null,
    vm.description ? ["Description", vm.description] : null,
    ["Labels", pairs(vm.labels)],
    vm.tags.length > 0 ? ["Tags", vm.tags.join(", ")] : null,
    ["Wanted", words(vm.desired)],
    ["Restarts by itself", `${words(vm.restart_policy)}${vm.restarts ? `, ${vm.restarts} in a row` : ""}${vm.restart_at ? `, next ${ago(vm.restart_at)}` : ""}`],
    ["Watchdog", words(vm.watchdog)],
    ["User-data", vm.has_user_data ? "given (never shown)" : "none"],
    ["SSH keys", vm.ssh_keys.length === 0 ? "none" : html`<details><summary>${counted(vm.ssh_keys.length, "key")}</summary>${vm.ssh_keys.map(key => html`<div><code class="break">${key}</code></div>`)}</details>`],
    vm.protected ? ["Protected", "cannot be deleted"] : null,
    ["Created", html`${moment(vm.created_at)}${vm.created_by ? html` by ${whose(vm.created_by)}` : nothing}`],
    vm.forgotten ? ["Forgotten", vm.forgotten] : null,
    ["Id", html`<code>${vm.id}</code> <button type="button" class="link" @click=${() => copy(vm.id)}>Copy</button>`],
    ["As of", `version ${vm.version}, position ${vm.position}, ${moment(vm.updated_at)}`],
  ]);

/** @param {VmView} vm */
export const place = vm =>
  facts([
    ["Node", vm.node ? linkTo("node", null, vm.node) : "none yet"],
    vm.region ? ["Region", vm.region] : null,
    ["Addresses", vm.addresses.length ? vm.addresses.map(address => addressed(address, vm)) : "none known"],
    vm.mac ? ["MAC", html`<code>${vm.mac}</code>`] : null,
    ["Runs since", vm.phase === "running" ? moment(vm.started_at) : "–"],
    ["Guest ready", vm.ready && vm.ready_at ? moment(vm.ready_at) : "not in this boot"],
    vm.first_ready_at ? ["First ready", `${moment(vm.first_ready_at)}, on this disk`] : null,
    ["Boots", `${vm.guest_boots} of the guest, ${vm.boots} of them ordered${vm.rebuilds ? `; rebuilt ${counted(vm.rebuilds, "time")}` : ""}`],
    ["Host keys", hostKeys(vm)],
    ["Nodes considered", vm.considered.length === 0 ? "none yet" : considered(vm.considered)],
  ]);

/**
 * @param {string} address
 * @param {VmView} vm
 */
function addressed(address, {address_sources: sources}) {
  const source = sources.find(each => each.address === address)?.source;
  return html`
    <div><code class="break">${address}</code>
      <button type="button" class="link" aria-label="Copy ${address}" @click=${() => copy(address)}>Copy</button>
      ${source ? html`<span class="small">${SOURCES[source] ?? source}</span>` : nothing}</div>
  `;
}

/** @param {VmView} vm */
function hostKeys(vm) {
  if (vm.host_keys.length === 0) return "not known: the guest reports them when it is ready";
  const lines = knownHosts(vm);
  return html`
    ${vm.host_keys.map(({type, fingerprint}) => html`<div><span class="small">${type}</span> <code class="break">${fingerprint}</code></div>`)}
    ${lines === ""
      ? html`<span class="small">Without an address there is no line for known_hosts.</span>`
      : html`<button type="button" class="link" @click=${() => copy(lines)}>Copy as known_hosts lines</button>`}
  `;
}

/** @param {VmView["considered"]} nodes */
const considered = nodes => html`
  <details ?open=${nodes.every(({reason}) => reason !== null)}>
    <summary>${counted(nodes.reduce((sum, {more}) => sum + 1 + more, 0), "node")}</summary>
    <ul class="plain-list">
      ${nodes.map(({node, reason, more}) => html`<li>${linkTo("node", null, node)}: ${reason ?? "chosen"}${more ? html` <span class="small">and ${more} more like it</span>` : nothing}</li>`)}
    </ul>
  </details>
`;

/** @param {Record<string, string>} labels */
function pairs(labels) {
  const found = Object.entries(labels);
  return found.length === 0 ? "none" : html`${found.map(([key, value]) => html`<code class="label">${key}=${value}</code> `)}`;
}
