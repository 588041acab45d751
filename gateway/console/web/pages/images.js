/** The images that VMs start from. */

import {html, nothing} from "../core/html.js";
import {ago, bytes, counted} from "../core/format.js";
import {linkTo} from "../core/links.js";
import {Rows} from "../core/rows.js";
import {ask} from "../parts/ask.js";
import {badge, empty} from "../parts/badge.js";
import {quoted} from "../parts/command.js";
import {filters, matches, values} from "../parts/filters.js";
import {body} from "../parts/form.js";
import "../parts/table.js";

/** @typedef {{rows: Rows<ImageView, ImageView>}} Images */

/** @type {import("../parts/table.js").Column<ImageView>[]} */
const COLUMNS = [
  {name: "name", title: "Name", card: true, by: row => row.name, view: row => linkTo("image", null, row.id, row.name)},
  {name: "phase", title: "State", card: true, by: row => row.phase, view: row => badge(row.phase)},
  {name: "project", title: "For", card: true, by: row => row.project, view: row => (row.project ? linkTo("project", null, row.project) : "all projects")},
  {name: "release", title: "System", by: row => `${row.distribution} ${row.release}`, view: row => `${row.distribution ?? ""} ${row.release ?? ""}`},
  {name: "architecture", title: "CPUs", by: row => row.architecture, view: row => row.architecture},
  {name: "size", title: "Size", align: "end", by: row => row.size_bytes, view: row => bytes(row.size_bytes)},
  {name: "created", title: "Registered", by: row => row.created_at, view: row => html`<span title=${row.created_at}>${ago(row.created_at)}</span>`},
];

/** @type {Page<Images>} */
export const page = {
  async load({api, changed, signal}, before) {
    if (before && before.rows.signal === signal) {
      await before.rows.load();
      return before;
    }
    const rows = new Rows({api, path: "/v1/images", keep: (/** @type {ImageView} */ item) => (item.phase === "deleted" ? null : item), changed, signal});
    await rows.load();
    return {rows};
  },

  live({kind, id}, _context, {rows}) {
    if (kind === "image") rows.note(id);
  },

  view(context, {rows}) {
    const {at, me, query, go} = context;
    const shown = rows.list.filter(
      row => matches([row.id, row.name, row.source, row.distribution, row.release, row.description].join(" "), query["q"]) && (!query["phase"] || row.phase === query["phase"]) && (!query["architecture"] || row.architecture === query["architecture"]),
    );
    const button = at === null && me.mayAnywhere("image.manage") ? html`<button class="primary" @click=${() => void register(context)}>Register image</button>` : nothing;
    return html`
      <header class="page-head">
        <h1>Images</h1>
        <span class="count" role="status">${counted(rows.list.length, "image")}${rows.complete ? "" : ", reading…"}</span>
        <span class="grow"></span>
        ${button}
      </header>
      ${filters(context, "Search name, source, system…", [
        {name: "phase", label: "State", options: values(rows.list, ({phase}) => phase)},
        {name: "architecture", label: "CPUs", options: values(rows.list, ({architecture}) => architecture)},
      ])}
      <nb-table .model=${{
        label: "Images",
        columns: COLUMNS,
        rows: shown,
        id: (/** @type {ImageView} */ row) => row.id,
        name: (/** @type {ImageView} */ row) => row.name,
        onopen: (/** @type {ImageView} */ row) => go("/images/:image", {image: row.id}),
        empty: rows.list.length === 0 ? empty("No images", html`<code>nebula image build debian-12</code> makes one.`, button) : empty("None of them matches", "Change the search or the filters."),
      }}></nb-table>
    `;
  },
};

/** @param {Context} context */
async function register(context) {
  const everywhere = context.me.may("image.manage");
  const options = (/** @type {string[]} */ ...given) => given.map(value => ({value, text: value === "" ? "the usual one" : value}));
  /** @type {{resource: ImageView} | undefined} */
  const made = await ask(context, {
    title: "Register an image",
    button: "Register",
    values: {architecture: "x86_64", firmware: "", seed: "http", fetch: "platform"},
    fields: () => [
      {name: "id", label: "Id", required: true, placeholder: "debian-12"},
      {name: "name", label: "Name"},
      {name: "source", label: "Source", required: true, placeholder: "https://…/disk.qcow2", help: "An http(s) URL, or an absolute path on the platform's machine."},
      {name: "sha256", label: "SHA-256", help: "A file with another content is refused."},
      {name: "sha512", label: "SHA-512"},
      {name: "project", label: "Project", required: !everywhere, help: everywhere ? "Only it may use the image; without it, all projects may." : "The project of which you are an admin."},
      {name: "distribution", label: "Distribution", placeholder: "debian"},
      {name: "release", label: "Release", placeholder: "12"},
      {name: "architecture", label: "CPUs", required: true},
      {name: "firmware", label: "Firmware", type: "select", options: options("", "bios", "uefi")},
      {name: "seed", label: "How cloud-init gets its data", type: "select", options: options("http", "disk")},
      {name: "fetch", label: "From where nodes get it", type: "select", options: options("platform", "source")},
      {name: "description", label: "Description"},
    ],
    call: form => {
      const names = ["id", "name", "source", "sha256", "sha512", "project", "distribution", "release", "architecture", "firmware", "seed", "fetch", "description"];
      const values = body(Object.fromEntries(names.map(name => [name, form.text(name).trim()])));
      const given = ["name", "sha256", "sha512", "distribution", "release", "architecture", "firmware", "seed", "fetch", "description"].filter(name => values[name]);
      const more = given.map(name => ` --${name} ${quoted(String(values[name]))}`).join("");
      const project = values["project"] ? ` --private --project ${quoted(String(values["project"]))}` : "";
      return {method: "POST", path: "/v1/images", body: values, cli: `nebula image register ${quoted(String(values["source"] ?? "SOURCE"))} --id ${quoted(String(values["id"] ?? "ID"))}${more}${project}`};
    },
  });
  if (made) context.go("/images/:image", {image: made.resource.id});
}
