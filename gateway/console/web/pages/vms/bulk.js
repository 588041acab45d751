/** Actions on several VMs, one command each. */

import {html, nothing} from "../../core/html.js";
import {counted} from "../../core/format.js";
import {confirm} from "../../parts/confirm.js";
import {sheet} from "../../parts/sheet.js";
import {ACTIONS, call} from "../vm-actions.js";
import {Outcomes} from "./outcomes.js";
import {edit} from "./edit.js";

/** @typedef {{id: string, name: string, phase: string, project: string}} Chosen */
/** @typedef {import("../vm-actions.js").VmAction} VmAction */
/** @typedef {(outcomes: Outcomes) => void} Began called when commands are sent */

/** How many names a question has. */
const NAMED = 50;

/** @param {VmAction} action */
const needs = ({verb}) => (verb === "delete" ? "vm.delete" : "vm.operate");

/**
 * What the caller can do to some of these VMs, as their states say.
 * @param {Context} context
 * @param {readonly Chosen[]} vms
 * @param {Began} began
 * @returns {{text: string, act: () => void, danger: boolean, possible: boolean}[]}
 */
export function actions(context, vms, began) {
  const allowed = (/** @type {string} */ permission) => [...new Set(vms.map(({project}) => project))].some(project => context.me.may(permission, project));
  return [
    ...ACTIONS.filter(action => action.bulk && allowed(needs(action))).map(action => {
      const able = vms.filter(({phase}) => action.phases.includes(phase));
      return {text: action.text, danger: action.danger ?? false, possible: able.length > 0, act: () => void act(context, able, action, began)};
    }),
    ...(allowed("vm.edit") ? [{text: "Tags and labels", danger: false, possible: vms.length > 0, act: () => void edit(context, vms, began)}] : []),
  ];
}

/**
 * The line above the table while rows are selected; on a phone, its actions are in a sheet.
 * @param {Context} context
 * @param {readonly Chosen[]} vms
 * @param {Began} began
 * @param {() => void} clear
 */
export function bulk(context, vms, began, clear) {
  const offered = actions(context, vms, began);
  const title = `${counted(vms.length, "VM")} selected`;
  return html`
    <div class="bulk" role="toolbar" aria-label="Actions on the selected VMs">
      <strong>${title}</strong>
      ${offered.map(({text, act, danger, possible}) => html`<button class="no-phone-table ${danger ? "danger-text" : ""}" ?disabled=${!possible} @click=${act}>${text}</button>`)}
      ${offered.length > 0 ? html`<button class="only-phone primary" @click=${() => void sheet(title, offered)}>Actions</button>` : nothing}
      <span class="grow"></span>
      <button class="plain" @click=${clear}>Clear</button>
    </div>
  `;
}

/**
 * Ask, and send the command of an action to each VM.
 * @param {Context} context
 * @param {readonly Chosen[]} vms
 * @param {VmAction} action
 * @param {Began} began
 */
export async function act(context, vms, {verb, text, words, danger = false}, began) {
  const [first] = vms;
  if (first === undefined) return;
  const what = vms.length === 1 ? first.name : counted(vms.length, "VM");
  const sure = await confirm({
    title: `${text}: ${what}`,
    words: html`<p>${words ?? ""}</p><ul class="names">${vms.slice(0, NAMED).map(({name}) => html`<li>${name}</li>`)}</ul>${vms.length > NAMED ? html`<p class="small">and ${vms.length - NAMED} more</p>` : nothing}`,
    button: `${text} ${what}`,
    danger,
    act: async () => true,
    ...(danger ? {name: vms.length === 1 ? first.name : String(vms.length)} : {}),
  });
  if (!sure) return;
  const tasks = vms.map(({id, name, project}) => {
    const {method, path} = call(project, id, verb);
    return {name, call: async () => ({method, path, body: method === "POST" ? {} : null})};
  });
  began(new Outcomes(context, text, tasks));
}
