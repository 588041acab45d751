/** The dialogues that change a VM: its names and rules, and its size. Only what has been changed is sent. */

import {html} from "../core/html.js";
import {command} from "../parts/command.js";
import {open} from "../parts/dialog.js";
import {field} from "../parts/field.js";
import {Form, labels} from "../parts/form.js";

/** @typedef {import("../parts/field.js").Field} Field */

const options = (/** @type {string[]} */ ...values) => values.map(value => ({value, text: value}));

/** @type {Field[]} */
const CHANGE = [
  {name: "name", label: "Name", required: true},
  {name: "description", label: "Description"},
  {name: "labels", label: "Labels", type: "area", rows: 3, placeholder: "team=blue", help: "Lines of key=value."},
  {name: "tags", label: "Tags", help: "Ids of tags, with commas between them."},
  {name: "restart_policy", label: "Restarts by itself", type: "select", required: true, options: options("no", "on-failure", "always")},
  {name: "watchdog", label: "Watchdog", type: "select", required: true, options: options("disabled", "reset", "poweroff")},
  {name: "protected", label: "Protected: it cannot be deleted", type: "check"},
];
/** @type {Field[]} */
const RESIZE = [
  {name: "vcpus", label: "CPUs", type: "number", min: 1, required: true},
  {name: "memory_mib", label: "Memory in MiB", type: "number", min: 1, required: true},
  {name: "disk_gib", label: "Disk in GiB", type: "number", min: 1, required: true, help: "A disk only grows."},
];

const list = (/** @type {string} */ text) => text.split(/[\s,]+/).filter(Boolean);

/**
 * The value of a field, as the API has it.
 * @param {string} name
 * @param {string} text
 * @returns {unknown}
 */
function valueOf(name, text) {
  if (RESIZE.some(each => each.name === name)) return Number(text);
  if (name === "labels") return labels(text) ?? {};
  if (name === "tags") return list(text);
  return name === "protected" ? text === "true" : text.trim();
}

/**
 * What has been changed: the body of the call. Pure.
 * @param {Record<string, string>} before
 * @param {Record<string, string>} after
 */
const changes = (before, after) =>
  Object.fromEntries(Object.keys(before).filter(name => before[name] !== after[name]).map(name => [name, valueOf(name, after[name] ?? "")]));

/** @param {VmView} vm @returns {Record<string, string>} */
const properties = vm => ({
  name: vm.name,
  description: vm.description ?? "",
  labels: Object.entries(vm.labels).map(([key, value]) => `${key}=${value}`).join("\n"),
  tags: vm.tags.join(", "),
  restart_policy: vm.restart_policy,
  watchdog: vm.watchdog,
  protected: String(vm.protected),
});

/**
 * @param {Context} context
 * @param {VmView} vm
 */
export const change = ({api}, vm) => ask(api, vm, {title: `Edit: ${vm.name}`, fields: CHANGE, values: properties(vm), method: "PATCH", verb: "", words: ""});

/**
 * @param {Context} context
 * @param {VmView} vm
 */
export const resize = ({api}, vm) => {
  const values = {vcpus: String(vm.vcpus), memory_mib: String(vm.memory_mib), disk_gib: String(vm.disk_gib)};
  const words = "It has the new size from its next start on: stop and start it, or restart it.";
  return ask(api, vm, {title: `Resize: ${vm.name}`, fields: RESIZE, values, method: "POST", verb: "/resize", words});
};

/**
 * @param {import("../core/api.js").Api} api
 * @param {VmView} vm
 * @param {{title: string, fields: Field[], values: Record<string, string>, method: string, verb: string, words: string}} about
 * @returns {Promise<Operation | undefined>} undefined if nothing was done
 */
function ask(api, vm, {title, fields, values, method, verb, words}) {
  const path = `/v1/projects/${encodeURIComponent(vm.project)}/vms/${encodeURIComponent(vm.id)}${verb}`;
  const names = fields.map(({name}) => name);
  let changed = () => {};
  const form = new Form(values, () => changed());
  return open(
    title,
    dialog => {
      changed = dialog.changed;
      const body = changes(values, form.values);
      const submit = async (/** @type {Event} */ event) => {
        event.preventDefault();
        const answer = await form.send(api, method, path, body);
        if (answer !== null) dialog.close(answer.operation);
      };
      const wrong = labels(form.text("labels")) === null;
      const hint = wrong ? {hint: "lines of key=value"} : {};
      return html`
        <form class="dialog-form" @submit=${submit}>
          <div class="dialog-body">
            ${words ? html`<p>${words}</p>` : ""}
            <div>${fields.map(each => field(form, each.name === "labels" ? {...each, ...hint} : each))}</div>
            ${form.refusal(names)} ${command({method, path, body})}
          </div>
          <footer class="dialog-foot">
            <button type="button" ?disabled=${form.busy} @click=${() => dialog.close()}>Cancel</button>
            <button type="submit" class="primary" ?disabled=${form.busy || wrong || Object.keys(body).length === 0}>${form.busy ? "Sending…" : "Save"}</button>
          </footer>
        </form>
      `;
    },
    {mayClose: () => !form.busy},
  );
}
