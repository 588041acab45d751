/** The dialogue that creates a VM, with the call beside it, and where it would be placed. */

import {html, nothing} from "../core/html.js";
import {gib, mib} from "../core/format.js";
import {Problem} from "../core/problem.js";
import {command, quoted} from "../parts/command.js";
import {open} from "../parts/dialog.js";
import {field} from "../parts/field.js";
import {body, Form, labels} from "../parts/form.js";
import "../parts/progress.js";

/** Milliseconds without typing after which the platform is asked what it would do. */
const PAUSE = 500;
/** The beginnings that cloud-init knows (docs/http-api.md has all). */
const KNOWN = /^(#cloud-config|#!|#include|#cloud-boothook|#part-handler|## template: jinja|Content-Type:|MIME-Version:)/;

const FIELDS = ["name", "image", "flavor", "vcpus", "memory_mib", "disk_gib", "ssh_keys", "user_data", "labels", "description"];

/**
 * What user-data lacks, in words; null if it looks right.
 * @param {string} text
 */
function doubt(text) {
  if (text.trim() === "" || KNOWN.test(text)) return null;
  if (/^\s+#cloud-config/.test(text)) return "#cloud-config has to be the very first characters";
  return "cloud-init ignores what begins otherwise: begin with the line #cloud-config, or with #! for a script";
}

/**
 * The body of the call, of the values of the form.
 * @param {Form} form
 */
function bodyOf(form) {
  const flavor = form.text("flavor");
  const keys = form.text("ssh_keys").split("\n").map(line => line.trim()).filter(Boolean);
  const found = labels(form.text("labels"));
  return body({
    name: form.text("name").trim(),
    image: form.text("image"),
    ...(flavor ? {flavor} : {vcpus: form.number("vcpus"), memory_mib: form.number("memory_mib"), disk_gib: form.number("disk_gib")}),
    ssh_keys: keys.length > 0 ? keys : null,
    user_data: form.text("user_data"),
    labels: found && Object.keys(found).length > 0 ? found : null,
    description: form.text("description").trim(),
  });
}

/**
 * The same as a command of `nebula`.
 * @param {string} project
 * @param {Record<string, unknown>} values
 */
function cliOf(project, values) {
  const {name = "", image = "", flavor, vcpus, memory_mib: memory, disk_gib: disk, description} = values;
  const words = ["nebula vm create", quoted(String(name || "NAME")), "--image", quoted(String(image || "IMAGE")), "--project", quoted(project)];
  if (flavor) words.push("--flavor", quoted(String(flavor)));
  if (vcpus) words.push("--vcpus", String(vcpus));
  if (memory) words.push("--memory", String(memory));
  if (disk) words.push("--disk", String(disk));
  if (values["ssh_keys"]) words.push("--ssh-key", "KEY.pub");
  if (values["user_data"]) words.push("--user-data", "FILE");
  for (const [key, value] of Object.entries(/** @type {Record<string, string>} */ (values["labels"] ?? {}))) words.push("--label", quoted(`${key}=${value}`));
  if (description) words.push("--description", quoted(String(description)));
  return words.join(" ");
}

/**
 * @param {Context} context
 * @param {string} project
 */
export async function create(context, project) {
  const {api, live, signal} = context;
  const path = `/v1/projects/${encodeURIComponent(project)}/vms`;
  /** @type {ImageView[] | null} */
  let images = null;
  /** @type {FlavorView[]} */
  let flavors = [];
  /** @type {PreviewView | Problem | null} */
  let preview = null;
  /** @type {{operation: Operation, resource: VmView} | null} */
  let made = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let alarm;
  let changed = () => {};
  const form = new Form({vcpus: "1", memory_mib: "512", disk_gib: "4"}, () => {
    changed();
    clearTimeout(alarm);
    alarm = setTimeout(() => void judge(), PAUSE);
  });

  const judge = async () => {
    const values = bodyOf(form);
    if (form.busy || made || !values["name"] || !values["image"]) return;
    const text = JSON.stringify(values);
    /** @type {PreviewView | Problem | null} */
    let found = null;
    try {
      found = await api.ask(`/v1/projects/${encodeURIComponent(project)}/vm-preview`, values, signal);
    } catch (error) {
      // A gateway that does not know this call says nothing; the create itself judges.
      if (error instanceof Problem && error.code !== "no_such_route" && error.status !== 503) found = error;
    }
    if (text !== JSON.stringify(bodyOf(form)) || made) return;
    preview = found;
    changed();
  };

  const choices = async () => {
    /** @type {[ListOf<ImageView>, ListOf<FlavorView>]} */
    const [ofImages, ofFlavors] = await Promise.all([
      api.get("/v1/images", {project, phase: "available", limit: 500}, {signal}),
      api.get("/v1/flavors", {project, limit: 500}, {signal}),
    ]);
    images = ofImages.items;
    flavors = ofFlavors.items.filter(({deprecated}) => !deprecated);
    if (!form.text("image") && images[0]) form.values["image"] = images[0].id;
    changed();
  };

  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const answer = await form.send(api, "POST", path, bodyOf(form));
    if (answer === null) return;
    made = /** @type {{operation: Operation, resource: VmView}} */ (answer);
    changed();
  };

  await open(
    "Create a virtual machine",
    dialog => {
      if (changed !== dialog.changed) {
        changed = dialog.changed;
        choices().catch(error => {
          form.problem = error;
          changed();
        });
      }
      if (made) return done(made, () => dialog.close(), context, live);
      return html`
        <form class="dialog-form" @submit=${submit}>
          <div class="dialog-body two">
            <div>${inputs(form, images, flavors)}</div>
            <div>
              ${placed(preview)}
              ${command({method: "POST", path, body: bodyOf(form), cli: cliOf(project, bodyOf(form)), open: true})}
              ${form.refusal(FIELDS)}
            </div>
          </div>
          <footer class="dialog-foot">
            <button type="button" ?disabled=${form.busy} @click=${() => dialog.close()}>Cancel</button>
            <button type="submit" class="primary" ?disabled=${form.busy || !images?.length}>${form.busy ? "Creating…" : "Create"}</button>
          </footer>
        </form>
      `;
    },
    {wide: true, mayClose: () => !form.busy},
  );
  clearTimeout(alarm);
}

/**
 * @param {{operation: Operation, resource: VmView}} made
 * @param {() => void} close
 * @param {Context} context
 * @param {import("../core/live.js").Live} live
 */
const done = ({operation, resource}, close, {api, go}, live) => html`
  <div class="dialog-body">
    <p>The VM <strong>${resource.name}</strong> is being made. You may close this: it goes on.</p>
    <nb-progress .model=${{id: operation.id, api, live, plain: true}}></nb-progress>
  </div>
  <footer class="dialog-foot">
    <button type="button" @click=${close}>Close</button>
    <button type="button" class="primary" @click=${() => {
      close();
      go("/projects/:project/vms/:vm", {project: resource.project, vm: resource.id});
    }}>Open the VM</button>
  </footer>
`;

/**
 * @param {Form} form
 * @param {ImageView[] | null} images
 * @param {FlavorView[]} flavors
 */
function inputs(form, images, flavors) {
  const named = labels(form.text("labels")) === null ? "lines of key=value" : undefined;
  const wrong = doubt(form.text("user_data"));
  return html`
    ${field(form, {name: "name", label: "Name", required: true, placeholder: "web-1"})}
    ${images !== null && images.length === 0
      ? html`<p class="field-hint">This project has no image yet. <code>nebula image build debian-12</code> makes one.</p>`
      : field(form, {
          name: "image",
          label: "Image",
          type: "select",
          required: true,
          options: (images ?? []).map(({id, name}) => ({value: id, text: name === id ? id : `${name} (${id})`})),
        })}
    ${flavors.length === 0
      ? nothing
      : field(form, {
          name: "flavor",
          label: "Size",
          type: "select",
          required: true,
          options: [
            {value: "", text: "Own numbers"},
            ...flavors.map(({id, name, vcpus, memory_mib: memory, disk_gib: disk}) => ({value: id, text: `${name}: ${vcpus} CPU, ${mib(memory)}, ${gib(disk)}`})),
          ],
        })}
    ${form.text("flavor")
      ? nothing
      : html`<div class="row-of-fields">
          ${field(form, {name: "vcpus", label: "CPUs", type: "number", min: 1, required: true})}
          ${field(form, {name: "memory_mib", label: "Memory in MiB", type: "number", min: 1, required: true})}
          ${field(form, {name: "disk_gib", label: "Disk in GiB", type: "number", min: 1, required: true})}
        </div>`}
    ${field(form, {name: "ssh_keys", label: "SSH keys", type: "area", rows: 2, placeholder: "ssh-ed25519 AAAA… you@host", help: "One a line. Those of the project are added."})}
    ${field(form, {name: "user_data", label: "User-data", type: "area", rows: 4, placeholder: "#cloud-config", ...(wrong ? {hint: wrong} : {})})}
    ${field(form, {name: "labels", label: "Labels", type: "area", rows: 2, placeholder: "team=blue", ...(named ? {hint: named} : {})})}
    ${field(form, {name: "description", label: "Description"})}
  `;
}

/** @param {PreviewView | Problem | null} preview */
function placed(preview) {
  if (preview === null) return nothing;
  if (preview instanceof Problem) {
    return html`<div class="note bad" role="status"><p>${preview.detail}</p><ul>${preview.errors.map(({field: name, detail}) => html`<li><code>${name}</code>: ${detail}</li>`)}</ul></div>`;
  }
  return html`
    <div class="note" role="status">
      <p>${preview.node ? html`It would be placed on <strong>${preview.node}</strong>.` : "No node has room for it now: it would wait."}</p>
      <ul class="plain-list small">
        ${preview.considered.filter(({reason}) => reason !== null).map(({node, reason, more}) => html`<li>${node}: ${reason}${more ? `, and ${more} more` : ""}</li>`)}
      </ul>
      ${preview.warnings.map(({detail}) => html`<p class="field-hint">${detail}</p>`)}
    </div>
  `;
}
