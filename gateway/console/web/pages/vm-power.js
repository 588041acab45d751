/** The dialogues of the verbs that shut a guest down: how long it may take for that, or by force; for a rescue, from which image. */

import {html} from "../core/html.js";
import {first} from "../core/first.js";
import {ask} from "../parts/ask.js";
import {body} from "../parts/form.js";
import {call, cliOf} from "./vm-actions.js";

/** @typedef {import("../parts/field.js").Field} Field */
/** @typedef {import("../parts/form.js").Form} Form */

/** @type {Field} */
const GRACE = {
  name: "grace_seconds",
  label: "Seconds to shut down",
  type: "number",
  min: 0,
  max: 3600,
  placeholder: "90",
  help: "After that, its power is cut.",
};

/**
 * The choice of an image for a new disk of a VM.
 * @param {Context} context
 * @param {VmView} vm
 * @returns {Promise<Field>}
 */
export async function imageField(context, vm) {
  const {items} = await first(context, "/v1/images", {project: vm.project, phase: "available"}, 1000);
  const others = /** @type {ImageView[]} */ (items).filter(({id}) => id !== vm.image);
  const options = others.map(({id, name}) => ({value: id, text: name === id ? id : `${name} (${id})`}));
  return {name: "image", label: "Image", type: "select", required: true, options: [{value: vm.image, text: `${vm.image}, as now`}, ...options]};
}

/**
 * Stop, restart, rescue, or end a rescue.
 * @param {Context} context
 * @param {VmView} vm
 * @param {import("./vm-actions.js").VmAction} action
 * @param {VerbView} [judged] what the platform says of the verb
 * @returns {Promise<Operation | undefined>} undefined if nothing was done
 */
export async function power(context, vm, {verb, text, words}, judged) {
  const {method, path} = call(vm.project, vm.id, verb);
  const only = judged !== undefined && !judged.accepted && judged.forced?.accepted === true;
  /** @type {Field} */
  const force = {name: "force", label: "By force: as if its power were cut", type: "check", ...(only && judged.why ? {help: `Without force: ${judged.why}.`} : {})};
  const image = verb === "rescue" ? [await imageField(context, vm)] : [];
  const forced = (/** @type {Form} */ form) => form.text("force") === "true";
  const answer = await ask(context, {
    title: `${text}: ${vm.name}`,
    button: text,
    words: html`<p>${words}</p>`,
    values: {image: vm.image, grace_seconds: "", force: String(only)},
    fields: form => [...image, force, ...(forced(form) ? [] : [GRACE])],
    call: form => {
      const grace = forced(form) ? null : form.number("grace_seconds");
      const chosen = form.text("image") === vm.image ? "" : form.text("image");
      const options = [
        ...(chosen ? ["--image", chosen] : []),
        ...(forced(form) ? ["--force"] : grace === null ? [] : ["--grace", String(grace)]),
      ];
      return {method, path, body: body({image: chosen, force: forced(form) || null, grace_seconds: grace}), cli: cliOf(vm, verb, ...options)};
    },
    done: `${text}: ${vm.name} – accepted`,
  });
  return answer?.operation;
}
