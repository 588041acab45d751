/** What can be done with a VM: the words of each verb, and the call. Whether it is possible, the platform says. */

import {command, quoted} from "../parts/command.js";
import {confirm} from "../parts/confirm.js";
import {say} from "../parts/toast.js";

/**
 * @typedef {object} VmAction
 * @property {string} verb
 * @property {string} text
 * @property {string} [words] what will happen
 * @property {boolean} [danger]
 * @property {string[]} phases where it is offered, if the platform does not say
 * @property {boolean} [bulk]
 */

const ALIVE = ["running", "paused", "suspended"];
const MADE = ["running", "stopped", "failed"];

/** @type {VmAction[]} */
export const ACTIONS = [
  {verb: "start", text: "Start", bulk: true, phases: ["stopped", "failed"]},
  {verb: "stop", text: "Stop", bulk: true, words: "The guest is asked to shut down.", phases: ALIVE},
  {verb: "restart", text: "Restart", bulk: true, words: "The guest is shut down and started again.", phases: ["running"]},
  {verb: "pause", text: "Pause", bulk: true, words: "Its CPUs stop; its memory stays on the node.", phases: ["running"]},
  {verb: "suspend", text: "Suspend", bulk: true, words: "Its memory is saved to the disk of the node.", phases: ["running"]},
  {verb: "resume", text: "Resume", bulk: true, phases: ["paused", "suspended"]},
  {verb: "change", text: "Edit", phases: []},
  {verb: "resize", text: "Resize", phases: []},
  {verb: "rescue", text: "Rescue", words: "It boots from a rescue disk, with its own disk as the second one (/dev/vdb).", phases: MADE},
  {verb: "unrescue", text: "End the rescue", words: "It boots from its own disk again. The rescue disk is deleted.", phases: MADE},
  {verb: "retry", text: "Try again", phases: ["failed"]},
  {verb: "abandon", text: "Give up the pending operation", words: "The operation ends as cancelled. What it has begun may still happen.", phases: []},
  {verb: "rebuild", text: "Rebuild", danger: true, phases: [...MADE, "paused", "suspended"]},
  {verb: "forget", text: "Forget", danger: true, phases: ["lost"]},
  {
    verb: "delete",
    text: "Delete",
    bulk: true,
    danger: true,
    words: "The VM and its disk are deleted. Nobody can bring them back.",
    phases: ["requested", "unschedulable", "scheduled", "stopped", "failed", "lost", ...ALIVE],
  },
];

/**
 * The call of a verb.
 * @param {string} project
 * @param {string} id
 * @param {string} verb
 */
export function call(project, id, verb) {
  const path = `/v1/projects/${encodeURIComponent(project)}/vms/${encodeURIComponent(id)}`;
  if (verb === "delete") return {method: "DELETE", path};
  return verb === "change" ? {method: "PATCH", path} : {method: "POST", path: `${path}/${verb}`};
}

/**
 * A verb as a command of `nebula`.
 * @param {{name: string, project: string}} vm
 * @param {string} verb
 * @param {string[]} more further words, which are quoted here
 */
export const cliOf = (vm, verb, ...more) => ["nebula vm", verb, ...[vm.name, ...more, "--project", vm.project].map(quoted)].join(" ");

/**
 * Ask, and send a command that needs no more than its verb.
 * @param {Context} context
 * @param {{id: string, name: string, project: string}} vm
 * @param {VmAction} action
 * @returns {Promise<Operation | undefined>} undefined if nothing was done
 */
export async function run({api}, vm, {verb, text, words, danger = false}) {
  const {method, path} = call(vm.project, vm.id, verb);
  const key = crypto.randomUUID();
  const body = method === "POST" ? {} : null;
  const operation = await confirm({
    title: `${text}: ${vm.name}`,
    words: words ?? `${text} the VM ${vm.name}.`,
    button: text,
    danger,
    more: command({method, path, body, cli: cliOf(vm, verb)}),
    act: async () => (await api.send(method, path, body, {key})).operation,
    ...(danger ? {name: vm.name} : {}),
  });
  if (operation) say(`${text}: ${vm.name} – accepted`, "busy");
  return operation;
}
