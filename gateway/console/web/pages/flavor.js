/** One flavor: its size, whether new VMs may use it. */

import {html, nothing} from "../core/html.js";
import {gib, mib, moment} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {ask} from "../parts/ask.js";
import {badge, facts} from "../parts/badge.js";
import {command, quoted} from "../parts/command.js";
import {confirm} from "../parts/confirm.js";
import {labels} from "../parts/form.js";

/** @typedef {{flavor: FlavorView}} One */

/** @type {Page<One>} */
export const page = {
  title: ({params}, data) => data?.flavor.name ?? `Flavor ${params["flavor"]}`,

  async load({api, params, signal}) {
    return {flavor: /** @type {FlavorView} */ (await api.get(pathOf(params["flavor"] ?? ""), {}, {signal}))};
  },

  live({kind, id}, context, {flavor}) {
    if (kind === "flavor" && id === flavor.id) context.refresh();
  },

  view(context, {flavor}) {
    const may = context.at === null && context.me.may("flavor.manage", flavor.project);
    return html`
      <nav class="crumbs" aria-label="Path">${link("/flavors", {}, "Flavors")}</nav>
      <header class="page-head">
        <h1>${flavor.name}</h1> ${badge(flavor.deprecated ? "deprecated" : "available")}
        <span class="grow"></span>
        ${may ? actions(context, flavor) : nothing}
      </header>
      <section class="card" aria-labelledby="what"><h2 id="what">What it is</h2>
        ${facts([
          ["Id", html`<code>${flavor.id}</code>`],
          ["Size", `${flavor.vcpus} CPU, ${mib(flavor.memory_mib)} memory, ${gib(flavor.disk_gib)} disk`],
          ["For", flavor.project ? linkTo("project", null, flavor.project) : "all projects"],
          flavor.description ? ["Description", flavor.description] : null,
          ["Labels", Object.keys(flavor.labels).length === 0 ? "none" : html`${Object.entries(flavor.labels).map(([key, value]) => html`<code class="label">${key}=${value}</code> `)}`],
          ["Created", moment(flavor.created_at)],
          ["Log", link("/log", {}, "its events", {kind: "flavor", id: flavor.id})],
        ])}
      </section>
    `;
  },
};

/** @param {string} id */
const pathOf = id => `/v1/flavors/${encodeURIComponent(id)}`;

/** @param {Context} context @param {FlavorView} flavor */
function actions(context, flavor) {
  const {api, refresh, go} = context;
  const {id, name} = flavor;
  const path = pathOf(id);
  const verb = flavor.deprecated ? "restore" : "deprecate";
  const lines = Object.entries(flavor.labels).map(([key, value]) => `${key}=${value}`).join("\n");
  const turn = () =>
    void confirm({
      title: `${flavor.deprecated ? "Restore" : "Deprecate"}: ${name}`,
      words: flavor.deprecated ? "New VMs may use it again." : "New VMs cannot use it. Those that exist keep it.",
      button: flavor.deprecated ? "Restore" : "Deprecate",
      more: command({method: "POST", path: `${path}/${verb}`, cli: `nebula flavor ${verb} ${quoted(id)}`}),
      act: async () => {
        await api.send("POST", `${path}/${verb}`);
        refresh();
      },
    });
  const change = () =>
    void ask(context, {
      title: `Change ${name}`,
      button: "Change",
      values: {name, description: flavor.description ?? "", labels: lines},
      fields: form => [
        {name: "name", label: "Name", required: true},
        {name: "labels", label: "Labels", type: "area", rows: 3, ...(labels(form.text("labels")) === null ? {hint: "lines of key=value"} : {})},
        {name: "description", label: "Description"},
      ],
      call: form => {
        const found = labels(form.text("labels"));
        return found === null ? null : {method: "PATCH", path, body: {name: form.text("name").trim(), description: form.text("description").trim(), labels: found}};
      },
    });
  const remove = () =>
    void confirm({
      title: `Delete: ${name}`,
      words: "No VM that was made from it may exist.",
      button: "Delete",
      danger: true,
      name: id,
      more: command({method: "DELETE", path, cli: `nebula flavor delete ${quoted(id)}`}),
      act: async () => {
        await api.send("DELETE", path, null, {wait: 10});
        go("/flavors");
      },
    });
  return html`
    <button @click=${change}>Change</button>
    <button @click=${turn}>${flavor.deprecated ? "Restore" : "Deprecate"}</button>
    <button class="danger-text" @click=${remove}>Delete</button>
  `;
}
