/** One node: what it can, has promised and uses; who works for it; its VMs. */

import {html, nothing} from "../core/html.js";
import {ago, bytes, counted, gib, mib, moment, words} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {newest} from "../core/newest.js";
import {unless} from "../core/problem.js";
import {ask} from "../parts/ask.js";
import {badge, facts, meter} from "../parts/badge.js";
import {spark} from "../parts/chart.js";
import {command} from "../parts/command.js";
import {confirm} from "../parts/confirm.js";
import "../parts/menu.js";
import {itemOf, timeline} from "../parts/timeline.js";
import {join} from "./node-join.js";

/** How many projects are searched for VMs of the node, and how many of its VMs and events are shown. */
const PROJECTS = 20;
const VMS = 100;
const EVENTS = 20;
/** Answers after which the page goes on without what the host uses. */
const SILENT = [403, 404, 409, 410, 503];

/**
 * @typedef {object} One
 * @property {NodeView} node
 * @property {UsageSeriesView | null} usage
 * @property {VmView[]} vms
 * @property {import("../parts/timeline.js").Item[]} events
 */

/** @type {Page<One>} */
export const page = {
  title: ({params}) => `Node ${params["node"]}`,

  async load(context) {
    const {api, params, signal, at} = context;
    const id = params["node"] ?? "";
    const path = pathOf(id);
    const [node, events, projects] = await Promise.all([
      /** @type {Promise<NodeView>} */ (api.get(path, {}, {signal})),
      newest(context, {id, kind: "node"}, EVENTS),
      /** @type {Promise<ListOf<ProjectView>>} */ (api.get("/v1/projects", {limit: PROJECTS}, {signal, now: true})),
    ]);
    const usage = at === null ? await unless(/** @type {Promise<UsageSeriesView>} */ (api.get(`${path}/usage`, {since: "1h", points: 60}, {signal})), SILENT) : null;
    const found = await Promise.all(
      projects.items.map(project => /** @type {Promise<ListOf<VmView>>} */ (api.get(`/v1/projects/${encodeURIComponent(project.id)}/vms`, {node: id, limit: VMS}, {signal}))),
    );
    return {node, usage, vms: found.flatMap(({items}) => items).slice(0, VMS), events: events.map(itemOf)};
  },

  live({kind, id, data: fields}, context, {node, vms}) {
    if (id === node.id || (kind === "vm" && (fields["node"] === node.id || vms.some(vm => vm.id === id)))) context.refresh();
  },

  view(context, {node, usage, vms, events}) {
    const {capacity, reserved, daemon, image_cache: cache} = node;
    return html`
      <nav class="crumbs" aria-label="Path">${link("/nodes", {}, "Nodes")}</nav>
      <header class="page-head">
        <h1>${node.id}</h1> ${badge(node.status)} ${node.cordoned ? badge("cordoned") : nothing}
        <span class="grow"></span>
        ${context.at === null && context.me.may("node.manage") ? actions(context, node) : nothing}
      </header>
      ${node.clock_warning ? html`<p class="field-hint">${node.clock_warning}</p>` : nothing}
      <div class="cards">
        <section class="card" aria-labelledby="promised"><h2 id="promised">Promised to VMs</h2>
          ${meter("CPU", reserved.vcpus, capacity.vcpus, `${reserved.vcpus} of ${capacity.vcpus}`)}
          ${meter("Memory", reserved.memory_mib, capacity.memory_mib, `${mib(reserved.memory_mib)} of ${mib(capacity.memory_mib)}`)}
          ${meter("Disk", reserved.disk_gib, capacity.disk_gib, `${gib(reserved.disk_gib)} of ${gib(capacity.disk_gib)}`)}
        </section>
        <section class="card" aria-labelledby="used"><h2 id="used">Used, last hour</h2>${used(usage)}</section>
        <section class="card" aria-labelledby="what"><h2 id="what">What it is</h2>
          ${facts([
            ["Region", node.region],
            ["Host", `${node.virt_type}, ${node.architecture}, agent ${node.agent_version}`],
            ["Last seen", node.last_seen ? `${moment(node.last_seen)}, ${ago(node.last_seen)}` : "never"],
            ["Registered", moment(node.registered_at)],
            node.retired_at ? ["Retired", moment(node.retired_at)] : null,
            ["Works for it", daemon ? `process ${daemon.pid} of ${daemon.host}, since ${moment(daemon.since)}` : "no daemon"],
            node.waiting.length > 0 ? ["Waits", node.waiting.map(({host, pid}) => `process ${pid} of ${host}`).join(", ")] : null,
            cache ? ["Images on it", `${counted(cache.images, "image")}, ${bytes(cache.bytes)}${cache.budget_bytes === null ? "" : ` of ${bytes(cache.budget_bytes)}`}`] : null,
            node.malformed_documents ? ["Cannot read", counted(node.malformed_documents, "document")] : null,
            node.clock_offset_seconds === null ? null : ["Clock", `${node.clock_offset_seconds.toFixed(3)} s from the gateway's`],
          ])}
        </section>
        <section class="card" aria-labelledby="vms"><h2 id="vms">${counted(vms.length, "VM")}</h2>
          ${vms.length === 0 ? html`<p class="small">None that you may see.</p>` : nothing}
          <ul class="plain-list">${vms.map(vm => html`<li>${badge(vm.phase)} ${linkTo("vm", vm.project, vm.id, vm.name)} <span class="small">in ${linkTo("project", null, vm.project)}</span></li>`)}</ul>
        </section>
        <section class="card wide" aria-labelledby="happened"><h2 id="happened">What happened</h2>
          ${timeline(events, {go: position => context.travel(String(position))})}
          <p class="small">${link("/log", {}, "All its events", {id: node.id})}</p>
        </section>
      </div>
    `;
  },
};

/** @param {string} id */
const pathOf = id => `/v1/nodes/${encodeURIComponent(id)}`;

/** @param {UsageSeriesView | null} usage */
function used(usage) {
  if (usage === null) return html`<p class="small">It is known for now only.</p>`;
  const {points, size} = usage;
  const last = points.findLast(({cpu, memory_bytes: memory}) => (cpu ?? null) !== null || (memory ?? null) !== null);
  if (!last) return html`<p class="small">It has not said anything yet.</p>`;
  const of = (/** @type {number | null} */ total) => (total === null ? "" : ` of ${bytes(total)}`);
  const line = (/** @type {string} */ label, /** @type {string} */ text, /** @type {(number | null)[]} */ values, /** @type {number | null} */ most) =>
    html`<p class="used"><span>${label}</span> <strong>${text}</strong> ${spark(`${label}: ${text}`, values, most)}</p>`;
  return html`
    ${line("CPU", last.cpu === null || last.cpu === undefined ? "–" : `${last.cpu.toFixed(2)}${size.cpus === null ? "" : ` of ${size.cpus}`}`, points.map(({cpu}) => cpu ?? null), size.cpus)}
    ${line("Memory", `${bytes(last.memory_bytes)}${of(size.memory_bytes)}`, points.map(({memory_bytes: value}) => value ?? null), size.memory_bytes)}
    ${line("Disk", `${bytes(last.disk_bytes)}${of(size.disk_bytes)}`, points.map(({disk_bytes: value}) => value ?? null), size.disk_bytes)}
  `;
}

/** @param {Context} context @param {NodeView} node */
function actions(context, node) {
  const {api, refresh} = context;
  const verb = (/** @type {string} */ name, /** @type {string} */ said, danger = false) => () =>
    void confirm({
      title: `${words(name)}: ${node.id}`,
      words: said,
      button: words(name),
      danger,
      ...(danger ? {name: node.id} : {}),
      more: command({method: "POST", path: `${pathOf(node.id)}/${name}`, body: {}, cli: `nebula node ${name} ${node.id}`}),
      act: async () => {
        await api.send("POST", `${pathOf(node.id)}/${name}`, {});
        refresh();
      },
    });
  const seed = () =>
    void ask(context, {
      title: `Where guests of ${node.id} read their data`,
      button: "Change",
      fields: () => [{name: "seed_url", label: "URL", required: true, placeholder: "http://169.254.169.254/", help: "The address of guest-data, as guests of this node reach it."}],
      call: form => ({method: "PATCH", path: pathOf(node.id), body: {seed_url: form.text("seed_url").trim()}, cli: `nebula node set-seed-url ${node.id} URL`}),
    });
  return html`
    ${node.cordoned
      ? html`<button @click=${verb("uncordon", "New VMs may be placed on it again.")}>Uncordon</button>`
      : html`<button @click=${verb("cordon", "No new VMs are placed on it. Its VMs go on.")}>Cordon</button>`}
    <nb-menu .model=${{
      label: "More actions",
      end: true,
      actions: [
        {text: "Change the seed URL", act: seed},
        {text: "Let another host be this node", act: () => void join(context, node.id)},
        {text: "Retire", danger: true, act: verb("retire", "For a node that will not come back. It has to be lost, and each of its VMs lost or forgotten.", true)},
      ],
    }}></nb-menu>
  `;
}
