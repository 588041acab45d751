/** The dialogue that gives a VM a new disk. It says what is lost, and the VM has to be named. */

import {html, nothing} from "../core/html.js";
import {gib} from "../core/format.js";
import {ask} from "../parts/ask.js";
import {body} from "../parts/form.js";
import {call, cliOf} from "./vm-actions.js";
import {imageField} from "./vm-power.js";
import {doubt} from "./vm-create.js";

/** @typedef {import("../parts/field.js").Field} Field */
/** @typedef {import("../parts/form.js").Form} Form */

const KEEP = "keep";
const NEW = "new";
const NONE = "none";

/** @param {VmView} vm @returns {Field} */
const keysChoice = vm => ({
  name: "keys",
  label: "SSH keys for the new disk",
  type: "select",
  required: true,
  options: [
    {value: KEEP, text: vm.ssh_keys.length === 0 ? "None, as now" : `The same ${vm.ssh_keys.length}`},
    {value: NEW, text: "Other ones"},
  ],
});

/** @param {VmView} vm @returns {Field} */
const dataChoice = vm => ({
  name: "data",
  label: "User-data for the new disk",
  type: "select",
  required: true,
  options: [
    {value: KEEP, text: vm.has_user_data ? "The same" : "None, as now"},
    {value: NEW, text: "Other user-data"},
    ...(vm.has_user_data ? [{value: NONE, text: "None"}] : []),
  ],
});

/** @type {Field} */
const KEYS = {name: "ssh_keys", label: "SSH keys", type: "area", rows: 2, placeholder: "ssh-ed25519 AAAA… you@host", help: "One a line. They replace those of now."};

/** @param {Form} form @returns {Field} */
function dataField(form) {
  const wrong = doubt(form.text("user_data"));
  return {name: "user_data", label: "User-data", type: "area", rows: 5, placeholder: "#cloud-config", required: true, ...(wrong ? {hint: wrong} : {})};
}

/** @param {VmView} vm */
const lost = vm => html`
  <p><strong>The disk of ${vm.name} is deleted, with everything on it</strong> (${gib(vm.disk_gib)}), when the new one is made. Nobody can bring it back.</p>
  <p>It keeps its id, name, size and addresses. For cloud-init it is a new machine: it gets new host keys.
    ${["running", "paused", "suspended"].includes(vm.phase) ? "It is powered off without a shutdown." : nothing}
    ${vm.rescue ? "Its rescue ends, and the rescue disk is deleted too." : nothing}</p>
`;

/**
 * @param {Context} context
 * @param {VmView} vm
 * @param {import("./vm-actions.js").VmAction} action
 * @returns {Promise<Operation | undefined>} undefined if nothing was done
 */
export async function rebuild(context, vm, {verb, text}) {
  const {method, path} = call(vm.project, vm.id, verb);
  const image = await imageField(context, vm);
  const answer = await ask(context, {
    title: `${text}: ${vm.name}`,
    button: text,
    words: lost(vm),
    danger: true,
    name: vm.name,
    values: {image: vm.image, keys: KEEP, data: KEEP, ssh_keys: "", user_data: ""},
    fields: form => [
      image,
      keysChoice(vm),
      ...(form.text("keys") === NEW ? [KEYS] : []),
      dataChoice(vm),
      ...(form.text("data") === NEW ? [dataField(form)] : []),
    ],
    call: form => {
      const chosen = form.text("image") === vm.image ? "" : form.text("image");
      const keys = form.text("keys") === NEW ? form.text("ssh_keys").split("\n").map(line => line.trim()).filter(Boolean) : null;
      const data = form.text("data") === NEW ? form.text("user_data") : null;
      const options = [...(chosen ? ["--image", chosen] : []), ...(keys === null ? [] : ["--ssh-key", "KEYS.pub"]), ...(form.text("data") === KEEP ? [] : ["--user-data", data === null ? "/dev/null" : "FILE"])];
      if (data !== null && data.trim() === "") return null;
      return {method, path, body: {...body({image: chosen, ssh_keys: keys, user_data: data}), ...(form.text("data") === NONE ? {user_data: ""} : {})}, cli: cliOf(vm, verb, ...options)};
    },
    done: `${text}: ${vm.name} – accepted`,
  });
  return answer?.operation;
}
