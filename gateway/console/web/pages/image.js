/** One image: where it is from, whether it was checked, how far its import is. */

import {html, nothing, outward} from "../core/html.js";
import {bytes, moment} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {newest} from "../core/newest.js";
import {badge, facts} from "../parts/badge.js";
import {command, quoted} from "../parts/command.js";
import {confirm} from "../parts/confirm.js";
import "../parts/progress.js";
import {itemOf, timeline} from "../parts/timeline.js";

const EVENTS = 20;

/** @typedef {{image: ImageView, events: import("../parts/timeline.js").Item[]}} One */

/** @type {Page<One>} */
export const page = {
  title: ({params}, data) => data?.image.name ?? `Image ${params["image"]}`,

  async load(context) {
    const {api, params, signal} = context;
    const id = params["image"] ?? "";
    const [image, events] = await Promise.all([
      /** @type {Promise<ImageView>} */ (api.get(pathOf(id), {}, {signal})),
      newest(context, {id, kind: "image"}, EVENTS),
    ]);
    return {image, events: events.map(itemOf)};
  },

  live({kind, id}, context, {image}) {
    if (kind === "image" && id === image.id) context.refresh();
  },

  view(context, {image, events}) {
    const {api, live, me, at} = context;
    const operation = image.phase === "verifying" && at === null ? events.find(event => event.operation !== null)?.operation : null;
    const may = at === null && image.phase !== "deleted" && me.may("image.manage", image.project);
    return html`
      <nav class="crumbs" aria-label="Path">${link("/images", {}, "Images")}</nav>
      <header class="page-head">
        <h1>${image.name}</h1> ${badge(image.phase)}
        <span class="grow"></span>
        ${may ? html`<button class="danger-text" @click=${() => void remove(context, image)}>Delete</button>` : nothing}
      </header>
      ${image.failure ? html`<div class="note bad" role="status"><p>${image.failure}</p></div>` : nothing}
      ${operation ? html`<div class="card"><nb-progress .model=${{id: operation, api, live, plain: true, ended: () => context.refresh()}}></nb-progress></div>` : nothing}
      <div class="cards">
        <section class="card" aria-labelledby="what"><h2 id="what">What it is</h2>
          ${facts([
            ["Id", html`<code>${image.id}</code>`],
            ["Source", outward(image.source)],
            ["For", image.project ? linkTo("project", null, image.project) : "all projects"],
            image.description ? ["Description", image.description] : null,
            ["System", `${image.distribution ?? "not said"} ${image.release ?? ""}, ${image.architecture}`],
            ["Starts with", `${image.firmware}; data for cloud-init over ${image.seed}`],
            ["Nodes get it", image.fetch === "source" ? "from its source" : "from the platform"],
            ["Size", `${bytes(image.size_bytes)}${image.virtual_size_bytes ? `, a disk of ${bytes(image.virtual_size_bytes)}` : ""}${image.format ? `, ${image.format}` : ""}`],
            image.sha256 ? ["SHA-256", html`<code class="break">${image.sha256}</code>`] : null,
            image.sha512 ? ["SHA-512", html`<code class="break">${image.sha512}</code>`] : null,
            ["Registered", moment(image.created_at)],
          ])}
        </section>
        <section class="card" aria-labelledby="happened"><h2 id="happened">What happened</h2>
          ${timeline(events, {go: position => context.travel(String(position))})}
          <p class="small">${link("/log", {}, "All its events", {id: image.id, kind: "image"})}</p>
        </section>
      </div>
    `;
  },
};

/** @param {string} id */
const pathOf = id => `/v1/images/${encodeURIComponent(id)}`;

/** @param {Context} context @param {ImageView} image */
const remove = ({api, go}, {id, name}) =>
  confirm({
    title: `Delete: ${name}`,
    words: "No VM may use it. Its bytes are removed from the platform and from the nodes.",
    button: "Delete",
    danger: true,
    name: id,
    more: command({method: "DELETE", path: pathOf(id), cli: `nebula image delete ${quoted(id)}`}),
    act: async () => {
      await api.send("DELETE", pathOf(id), null, {wait: 10});
      go("/images");
    },
  });
