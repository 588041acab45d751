/** The dialogues that change a VM: its names and rules, its size; and the one that gives it up with its lost node. */

import {html} from "../core/html.js";
import {ask} from "../parts/ask.js";
import {labels} from "../parts/form.js";
import {call, cliOf} from "./vm-actions.js";

/** @typedef {import("../parts/field.js").Field} Field */
/** @typedef {import("./vm-actions.js").VmAction} VmAction */

const options = (/** @type {string[]} */ ...values) => values.map(value => ({value, text: value}));

/** @type {Field[]} */
const CHANGE = [
  {name: "name", label: "Name", required: true, help: "Its guest gets it as its host name at its next boot."},
  {name: "description", label: "Description"},
  {name: "labels", label: "Labels", type: "area", rows: 3, placeholder: "team=blue", help: "Lines of key=value."},
  {name: "tags", label: "Tags", help: "Ids of tags, with commas between them."},
  {name: "restart_policy", label: "Restarts by itself", type: "select", required: true, options: options("no", "on-failure", "always")},
  {name: "watchdog", label: "Watchdog", type: "select", required: true, options: options("disabled", "reset", "poweroff"), help: "From its next start on."},
  {name: "protected", label: "Protected: it cannot be deleted", type: "check"},
];
/** @type {Field[]} */
const RESIZE = [
  {name: "vcpus", label: "CPUs", type: "number", min: 1, required: true},
  {name: "memory_mib", label: "Memory in MiB", type: "number", min: 1, required: true},
  {name: "disk_gib", label: "Disk in GiB", type: "number", min: 1, required: true, help: "A disk only grows."},
];
/** @type {Field} */
const REASON = {name: "reason", label: "Reason", required: true, help: "A sentence for the log."};
/** The option of `nebula vm resize` for each size. @type {Record<string, string>} */
const SIZES = {vcpus: "--vcpus", memory_mib: "--memory", disk_gib: "--disk"};

const list = (/** @type {string} */ text) => text.split(/[\s,]+/).filter(Boolean);

/**
 * The value of a field, as the API has it.
 * @param {string} name
 * @param {string} text
 * @returns {unknown}
 */
function valueOf(name, text) {
  if (name in SIZES) return Number(text);
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

/** The command of `nebula` for each property. @type {Record<string, (vm: VmView, value: any) => string>} */
const COMMANDS = {
  description: (vm, value) => cliOf(vm, "describe", value),
  labels: (vm, value) => cliOf(vm, "label", ...Object.entries(value).map(([key, text]) => `${key}=${text}`)),
  tags: (vm, value) => cliOf(vm, "tag", ...value),
  restart_policy: (vm, value) => cliOf(vm, "restart-policy", value),
  watchdog: (vm, value) => cliOf(vm, "watchdog", value),
  protected: (vm, value) => cliOf(vm, value ? "protect" : "unprotect"),
  name: (vm, value) => cliOf(vm, "rename", value),
};

/**
 * @param {Context} context
 * @param {VmView} vm
 * @param {VmAction} action
 */
export async function change(context, vm, {verb, text}) {
  const values = properties(vm);
  const cli = (/** @type {Record<string, unknown>} */ body) =>
    Object.entries(COMMANDS).filter(([name]) => name in body).map(([name, said]) => said(vm, body[name])).join(" && ");
  return edit(context, vm, {title: text, fields: CHANGE, values, verb, words: "", cli});
}

/**
 * @param {Context} context
 * @param {VmView} vm
 * @param {VmAction} action
 */
export async function resize(context, vm, {verb, text}) {
  const values = {vcpus: String(vm.vcpus), memory_mib: String(vm.memory_mib), disk_gib: String(vm.disk_gib)};
  const words = "It has the new size from its next start on: stop and start it, or restart it.";
  const cli = (/** @type {Record<string, unknown>} */ body) =>
    cliOf(vm, verb, ...Object.entries(SIZES).flatMap(([name, option]) => (name in body ? [option, String(body[name])] : [])));
  return edit(context, vm, {title: text, fields: RESIZE, values, verb, words, cli});
}

/**
 * @param {Context} context
 * @param {VmView} vm
 * @param {{title: string, fields: Field[], values: Record<string, string>, verb: string, words: string, cli: (body: Record<string, unknown>) => string}} about
 * @returns {Promise<Operation | undefined>} undefined if nothing was done
 */
async function edit(context, vm, {title, fields, values, verb, words, cli}) {
  const {method, path} = call(vm.project, vm.id, verb);
  const answer = await ask(context, {
    title: `${title}: ${vm.name}`,
    button: "Save",
    words: words ? html`<p>${words}</p>` : "",
    values,
    fields: form => fields.map(each => (each.name === "labels" && labels(form.text("labels")) === null ? {...each, hint: "lines of key=value"} : each)),
    call: form => {
      const body = changes(values, form.values);
      return Object.keys(body).length === 0 || labels(form.text("labels")) === null ? null : {method, path, body, cli: cli(body)};
    },
  });
  return answer?.operation;
}

/**
 * @param {Context} context
 * @param {VmView} vm
 * @param {VmAction} action
 * @returns {Promise<Operation | undefined>} undefined if nothing was done
 */
export async function forget(context, vm, {verb, text}) {
  const {method, path} = call(vm.project, vm.id, verb);
  const answer = await ask(context, {
    title: `${text}: ${vm.name}`,
    button: text,
    danger: true,
    name: vm.name,
    words: html`
      <p>Node <strong>${vm.node}</strong> is lost. If it never comes back, this marks the VM as deleted, without its node having confirmed it. Its keys are destroyed.</p>
      <p>If the node comes back nevertheless, it removes the VM and its disk. Nobody can bring them back.</p>
    `,
    fields: () => [REASON],
    call: form => {
      const reason = form.text("reason").trim();
      return reason === "" ? null : {method, path, body: {reason}, cli: cliOf(vm, verb, "--reason", reason)};
    },
    done: `${text}: ${vm.name} – accepted`,
  });
  return answer?.operation;
}
