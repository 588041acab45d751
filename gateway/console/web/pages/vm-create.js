/** The dialogue that creates a VM, with the call beside it, and where it would be placed. */

import {draftOf, keepDraft} from "../core/drafts.js";
import {html, nothing} from "../core/html.js";
import {gib, mib} from "../core/format.js";
import {Problem} from "../core/problem.js";
import {command} from "../parts/command.js";
import {open} from "../parts/dialog.js";
import {field} from "../parts/field.js";
import {Form, labels} from "../parts/form.js";
import "../parts/progress.js";
import {bodyOf, cliOf, countOf, DEFAULTS, MOST, numbered} from "./vms/create-call.js";
import {Outcomes} from "./vms/outcomes.js";

/** Milliseconds without typing after which the platform is asked what it would do. */
const PAUSE = 500;
/** The beginnings that cloud-init knows (docs/http-api.md has all). */
const KNOWN = /^(#cloud-config|#!|#include|#cloud-boothook|#part-handler|## template: jinja|Content-Type:|MIME-Version:)/;

const FIELDS = [
  ...["name", "image", "flavor", "vcpus", "memory_mib", "disk_gib", "ssh_keys", "user_data"],
  ...["tags", "labels", "region", "description", "restart_policy", "watchdog", "protected"],
];

/**
 * What user-data lacks, in words; null if it looks right.
 * @param {string} text
 */
export function doubt(text) {
  if (text.trim() === "" || KNOWN.test(text)) return null;
  if (/^\s+#cloud-config/.test(text)) return "#cloud-config has to be the very first characters";
  return "cloud-init ignores what begins otherwise: begin with the line #cloud-config, or with #! for a script";
}

/**
 * @param {Context} context
 * @param {string | null} fixed the project; null: it is asked for
 * @param {(outcomes: Outcomes) => void} began called when several are created
 */
export async function create(context, fixed, began) {
  const {api, live, me, signal} = context;
  const name = `${me.principal} vm ${fixed ?? ""}`;
  /** @type {ProjectView[] | null} */
  let projects = null;
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
  const form = new Form({...DEFAULTS, ...draftOf(name)}, () => {
    changed();
    if (made === null) keepDraft(name, form.values);
    clearTimeout(alarm);
    alarm = setTimeout(() => void judge(), PAUSE);
  });
  const inProject = (/** @type {string} */ what) => `/v1/projects/${encodeURIComponent(fixed ?? form.text("project"))}/${what}`;
  const sent = () => (countOf(form) > 1 ? numbered(bodyOf(form), 1) : bodyOf(form));

  const judge = async () => {
    const values = sent();
    if (form.busy || made || !form.text("name") || !values["image"]) return;
    const text = JSON.stringify(values);
    /** @type {PreviewView | Problem | null} */
    let found = null;
    try {
      found = await api.ask(inProject("vm-preview"), values, signal);
    } catch (error) {
      // A gateway that does not know this call says nothing; the create itself judges.
      if (error instanceof Problem && error.code !== "no_such_route" && error.status !== 503) found = error;
    }
    if (text !== JSON.stringify(sent()) || made) return;
    preview = found;
    changed();
  };

  const choices = async () => {
    if (fixed === null && projects === null) {
      /** @type {ListOf<ProjectView>} */
      const {items} = await api.get("/v1/projects", {limit: 500}, {signal});
      projects = items.filter(({id}) => me.may("vm.create", id));
      if (!projects.some(({id}) => id === form.text("project"))) form.values["project"] = projects[0]?.id ?? "";
    }
    const project = fixed ?? form.text("project");
    /** @type {[ListOf<ImageView>, ListOf<FlavorView>]} */
    const [ofImages, ofFlavors] = await Promise.all([
      api.get("/v1/images", {project, phase: "available", limit: 500}, {signal}),
      api.get("/v1/flavors", {project, limit: 500}, {signal}),
    ]);
    if (project !== (fixed ?? form.text("project"))) return;
    images = ofImages.items;
    flavors = ofFlavors.items.filter(({deprecated}) => !deprecated);
    if (!images.some(({id}) => id === form.text("image"))) form.values["image"] = images[0]?.id ?? "";
    if (!flavors.some(({id}) => id === form.text("flavor"))) form.values["flavor"] = "";
    changed();
  };
  const choose = () => {
    choices().catch(error => {
      form.problem = error;
      changed();
    });
  };

  await open(
    "Create a virtual machine",
    dialog => {
      if (changed !== dialog.changed) {
        changed = dialog.changed;
        choose();
      }
      if (made) return done(made, () => dialog.close(), context, live);
      const count = countOf(form);
      const submit = async (/** @type {Event} */ event) => {
        event.preventDefault();
        const values = bodyOf(form);
        const path = inProject("vms");
        const answer = /** @type {{operation: Operation, resource: VmView} | null} */ (await form.send(api, "POST", path, sent()));
        if (answer === null) return;
        made = answer;
        keepDraft(name, null);
        if (count > 1) {
          const tasks = Array.from({length: count}, (_, at) => {
            const body = numbered(values, at + 1);
            return {name: body.name, call: async () => ({method: "POST", path, body}), ...(at === 0 ? {operation: answer.operation} : {})};
          });
          dialog.close();
          began(new Outcomes(context, "Create", tasks));
        }
        changed();
      };
      const restart = () => {
        form.values = {...DEFAULTS};
        form.problem = preview = null;
        keepDraft(name, null);
        choose();
        changed();
      };
      return html`
        <form class="dialog-form" @submit=${submit}>
          <div class="dialog-body two">
            <div>
              ${projects === null ? nothing : field(form, {name: "project", label: "Project", type: "select", required: true, options: projects.map(({id, name: title}) => ({value: id, text: title})), changed: choose})}
              ${inputs(form, images, flavors)}
            </div>
            <div>
              ${placed(preview)}
              ${command({method: "POST", path: inProject("vms"), body: bodyOf(form), cli: cliOf(fixed ?? form.text("project"), bodyOf(form), count), count, open: true})}
              ${form.refusal(FIELDS)}
            </div>
          </div>
          <footer class="dialog-foot">
            <button type="button" class="plain" ?disabled=${form.busy} @click=${restart}>Start afresh</button><span class="grow"></span>
            <button type="button" ?disabled=${form.busy} @click=${() => dialog.close()}>Cancel</button>
            <button type="submit" class="primary" ?disabled=${form.busy || !images?.length}>${form.busy ? "Creating…" : count > 1 ? `Create ${count}` : "Create"}</button>
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

const words = (/** @type {string[]} */ ...values) => values.map(value => ({value, text: value}));

/**
 * @param {Form} form
 * @param {ImageView[] | null} images
 * @param {FlavorView[]} flavors
 */
function inputs(form, images, flavors) {
  const named = labels(form.text("labels")) === null ? "lines of key=value" : undefined;
  const wrong = doubt(form.text("user_data"));
  const count = countOf(form);
  return html`
    <div class="row-of-fields name-and-count">
      ${field(form, {name: "name", label: "Name", required: true, placeholder: "web-1", ...(count > 1 ? {help: `${form.text("name")}-1 to ${form.text("name")}-${count}`} : {})})}
      ${field(form, {name: "count", label: "How many", type: "number", min: 1, max: MOST, required: true})}
    </div>
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
    ${field(form, {name: "tags", label: "Tags", help: "Ids of tags, with commas between them."})}
    ${field(form, {name: "description", label: "Description"})}
    <div class="row-of-fields">
      ${field(form, {name: "region", label: "Region", placeholder: "any"})}
      ${field(form, {name: "restart_policy", label: "Restarts by itself", type: "select", required: true, options: words("no", "on-failure", "always")})}
      ${field(form, {name: "watchdog", label: "Watchdog", type: "select", required: true, options: words("disabled", "reset", "poweroff")})}
    </div>
    ${field(form, {name: "protected", label: "Protected: it cannot be deleted", type: "check"})}
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
