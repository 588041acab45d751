/** One project: who may do what in it, what it uses, its keys, its part of the log. */

import {html, nothing} from "../core/html.js";
import {counted, gib, mib, moment} from "../core/format.js";
import {link, linkTo, whose} from "../core/links.js";
import {newest} from "../core/newest.js";
import {badge, facts} from "../parts/badge.js";
import {spark} from "../parts/chart.js";
import {itemOf, timeline} from "../parts/timeline.js";
import {change, give, remove, take} from "./project-actions.js";

const EVENTS = 20;
/** How many moments the lines of usage have. */
const MOMENTS = 12;

/**
 * @typedef {object} One
 * @property {ProjectView} project
 * @property {UsageView} usage
 * @property {(UsageView | null)[]} earlier usage at earlier moments, the oldest first; null: it was not there
 * @property {ImageView[]} images of its own
 * @property {FlavorView[]} flavors of its own
 * @property {import("../parts/timeline.js").Item[]} events
 */

/** @type {Page<One>} */
export const page = {
  title: ({params}, data) => data?.project.name ?? `Project ${params["project"]}`,

  async load(context, before) {
    const {api, params, signal} = context;
    const id = params["project"] ?? "";
    const path = pathOf(id);
    const [project, usage, images, flavors, events] = await Promise.all([
      /** @type {Promise<ProjectView>} */ (api.get(path, {}, {signal})),
      /** @type {Promise<UsageView>} */ (api.get(`${path}/usage`, {}, {signal})),
      /** @type {Promise<ListOf<ImageView>>} */ (api.get("/v1/images", {project: id, limit: 500}, {signal})),
      /** @type {Promise<ListOf<FlavorView>>} */ (api.get("/v1/flavors", {project: id, limit: 500}, {signal})),
      newest(context, {project: id}, EVENTS),
    ]);
    const own = (/** @type {{project: string | null}} */ each) => each.project === id;
    const data = {project, usage, earlier: before?.earlier ?? [], images: images.items.filter(own), flavors: flavors.items.filter(own), events: events.map(itemOf)};
    if (!before) void past(context, data).catch(() => {}); // without it, there are no lines
    return data;
  },

  live({project, kind, id}, context, data) {
    if (project === data.project.id || (kind === "project" && id === data.project.id) || kind === "image" || kind === "flavor") context.refresh();
  },

  view(context, data) {
    const {me, at} = context;
    const {project, events, images, flavors} = data;
    const {id} = project;
    const may = (/** @type {string} */ permission) => at === null && me.may(permission, id);
    return html`
      <nav class="crumbs" aria-label="Path">${link("/projects", {}, "Projects")}</nav>
      <header class="page-head">
        <h1>${project.name}</h1>
        <span class="grow"></span>
        ${link("/projects/:project/vms", {project: id}, "Its virtual machines")}
        ${may("project.edit") ? html`<button @click=${() => void change(context, project)}>Change</button>` : nothing}
        ${may("project.manage") ? html`<button class="danger-text" @click=${() => void remove(context, project)}>Delete</button>` : nothing}
      </header>
      <div class="cards">
        <section class="card" aria-labelledby="what"><h2 id="what">What it is</h2>
          ${facts([
            ["Id", html`<code>${id}</code>`],
            project.description ? ["Description", project.description] : null,
            ["Tags", project.tags.length ? project.tags.join(", ") : "none"],
            ["Created", `${moment(project.created_at)}${project.created_by ? ` by ${project.created_by}` : ""}`],
          ])}
        </section>
        <section class="card" aria-labelledby="usage"><h2 id="usage">What it uses</h2>${usage(data)}</section>
        <section class="card" aria-labelledby="members"><h2 id="members">${counted(project.members.length, "member")}</h2>
          ${project.members.length === 0 ? html`<p class="small">None. Operators see and change it anyway.</p>` : nothing}
          <ul class="plain-list">
            ${project.members.map(
              member => html`<li>${whose(member.principal)} ${badge(member.role)}
                ${may("project.members") ? html`<button class="danger-text" aria-label="Take the role of ${member.principal}" @click=${() => void take(context, id, member.principal)}>Take away</button>` : nothing}</li>`,
            )}
          </ul>
          ${may("project.members") ? html`<button @click=${() => void give(context, id)}>Give a role</button>` : nothing}
        </section>
        <section class="card" aria-labelledby="keys"><h2 id="keys">${counted(project.ssh_keys.length, "SSH key")}</h2>
          <p class="small">New VMs get them.</p>
          ${project.ssh_keys.map(key => html`<code class="break">${key}</code>`)}
        </section>
        <section class="card" aria-labelledby="own"><h2 id="own">Images and flavors of its own</h2>
          <ul class="plain-list">
            ${images.map(image => html`<li>${badge(image.phase)} image ${linkTo("image", null, image.id, image.name)}</li>`)}
            ${flavors.map(flavor => html`<li>flavor ${linkTo("flavor", null, flavor.id, flavor.name)}</li>`)}
          </ul>
          ${images.length + flavors.length === 0 ? html`<p class="small">None: it uses those of the cloud.</p>` : nothing}
        </section>
        <section class="card wide" aria-labelledby="happened"><h2 id="happened">What happened</h2>
          ${timeline(events, {subject: item => html`${item.kind} ${linkTo(item.kind, item.project, item.id)}`, go: position => context.travel(String(position))})}
          <p class="small">${link("/log", {}, "All its events", {project: id})}</p>
        </section>
      </div>
    `;
  },
};

/** @param {string} id */
const pathOf = id => `/v1/projects/${encodeURIComponent(id)}`;

/** @param {One} data */
function usage({usage: {in_use: used, promised}, earlier}) {
  const row = (/** @type {string} */ label, /** @type {"vms" | "vcpus" | "memory_mib" | "disk_gib"} */ name, /** @type {(value: number) => string} */ text) => html`
    <tr><th scope="row">${label}</th><td>${text(used[name])}</td><td>${text(promised[name])}</td>
      <td>${earlier.length > 1 ? spark(`${label} promised over time, now ${text(promised[name])}`, earlier.map(each => each?.promised[name] ?? null)) : nothing}</td></tr>
  `;
  return html`
    <table class="plain-table">
      <thead><tr><th scope="col"><span class="unseen">What</span></th><th scope="col">In use</th><th scope="col">Promised</th><th scope="col">Over time</th></tr></thead>
      <tbody>${row("VMs", "vms", String)} ${row("CPUs", "vcpus", String)} ${row("Memory", "memory_mib", mib)} ${row("Disk", "disk_gib", gib)}</tbody>
    </table>
  `;
}

/**
 * The usage at some moments between the first event of the project and what is shown.
 * @param {Context} context
 * @param {One} data
 */
async function past({api, at, signal, changed}, data) {
  const {id} = data.project;
  /** @type {ListOf<CloudEvent>} */
  const {items} = await api.get("/v1/events", {kind: "project", id, limit: 1}, {signal, now: true});
  const first = items[0]?.position;
  const last = at !== null && /^[0-9]+$/.test(at) ? Number(at) : api.position;
  if (first === undefined || last <= first) return;
  const count = Math.min(MOMENTS, last - first + 1);
  const positions = Array.from({length: count}, (_, step) => Math.round(first + ((last - first) * step) / Math.max(1, count - 1)));
  for (const position of positions) {
    /** @type {UsageView | null} */
    const then = await api.get(`${pathOf(id)}/usage`, {at: position}, {signal, now: true}).catch(() => null);
    data.earlier.push(/** @type {UsageView | null} */ (then));
  }
  changed();
}
