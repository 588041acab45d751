/** What can be done with a VM: the words of each verb, and its dialogue. Whether it is possible, the platform says. */

import {html, nothing} from "../core/html.js";
import {command, quoted} from "../parts/command.js";
import {confirm} from "../parts/confirm.js";
import {say} from "../parts/toast.js";

/**
 * @typedef {object} VmAction
 * @property {string} verb
 * @property {string} text
 * @property {string} [words] what will happen
 * @property {boolean} [danger]
 * @property {boolean} [force] also by force
 * @property {string[]} phases where it is offered, if the platform does not say
 * @property {boolean} [bulk]
 */

const ALIVE = ["running", "paused", "suspended"];

/** @type {VmAction[]} */
export const ACTIONS = [
  {verb: "start", text: "Start", bulk: true, phases: ["stopped", "failed"]},
  {verb: "stop", text: "Stop", bulk: true, force: true, words: "The guest is asked to shut down.", phases: ALIVE},
  {verb: "restart", text: "Restart", bulk: true, force: true, words: "The guest is shut down and started again.", phases: ["running"]},
  {verb: "pause", text: "Pause", bulk: true, words: "Its CPUs stop; its memory stays on the node.", phases: ["running"]},
  {verb: "suspend", text: "Suspend", bulk: true, words: "Its memory is saved to the disk of the node.", phases: ["running"]},
  {verb: "resume", text: "Resume", bulk: true, phases: ["paused", "suspended"]},
  {verb: "change", text: "Edit", phases: []},
  {verb: "resize", text: "Resize", phases: []},
  {verb: "retry", text: "Try again", phases: ["failed"]},
  {verb: "abandon", text: "Give up the pending operation", words: "The operation ends as cancelled. What it has begun may still happen.", phases: []},
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
  return verb === "delete" ? {method: "DELETE", path} : {method: "POST", path: `${path}/${verb}`};
}

/**
 * Ask, and send the command. What is harmless is sent without a question.
 * @param {Context} context
 * @param {{id: string, name: string, project: string}} vm
 * @param {VmAction} action
 * @returns {Promise<Operation | undefined>} undefined if nothing was done
 */
export async function run({api}, vm, {verb, text, words, danger = false, force = false}) {
  const {method, path} = call(vm.project, vm.id, verb);
  const key = crypto.randomUUID();
  let forced = false;
  const act = async () => (await api.send(method, path, forced ? {force: true} : method === "POST" ? {} : null, {key: forced ? `${key}-force` : key})).operation;
  const more = html`
    ${force
      ? html`<label class="field-check"><input type="checkbox" name="force" @change=${(/** @type {Event} */ event) => {
          forced = /** @type {HTMLInputElement} */ (event.target).checked;
        }}> By force: as if its power were cut</label>`
      : nothing}
    ${command({method, path, body: method === "POST" ? {} : null, cli: `nebula vm ${verb} ${quoted(vm.name)} --project ${quoted(vm.project)}`})}
  `;
  const operation = await confirm({
    title: `${text}: ${vm.name}`,
    words: words ?? `${text} the VM ${vm.name}.`,
    button: text,
    danger,
    more,
    act,
    ...(danger ? {name: vm.name} : {}),
  });
  if (operation) say(`${text}: ${vm.name} – accepted`, "busy");
  return operation;
}
