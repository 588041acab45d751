/** Actions on several VMs: one command each, a few at the same time; what is refused is named. */

import {html} from "../core/html.js";
import {counted} from "../core/format.js";
import {asProblem} from "../core/problem.js";
import {confirm} from "../parts/confirm.js";
import {open} from "../parts/dialog.js";
import {say} from "../parts/toast.js";
import {ACTIONS, call} from "./vm-actions.js";

/** How many commands are sent at the same time. */
const WIDTH = 4;

/** @typedef {{id: string, name: string, phase: string}} Chosen */

/**
 * The line above the table while rows are selected.
 * @param {Context} context
 * @param {string} project
 * @param {Chosen[]} vms
 * @param {() => void} done called when the selection has served its purpose
 */
export const bulk = (context, project, vms, done) => html`
  <div class="bulk" role="toolbar" aria-label="Actions on the selected VMs">
    <strong>${counted(vms.length, "VM")} selected</strong>
    ${ACTIONS.filter(action => action.bulk && context.me.may(action.verb === "delete" ? "vm.delete" : "vm.operate", project)).map(
      action => html`
        <button class=${action.danger ? "danger-text" : ""} ?disabled=${!vms.some(({phase}) => action.phases.includes(phase))}
          @click=${() => void all(context, project, vms.filter(({phase}) => action.phases.includes(phase)), action, done)}>${action.text}</button>
      `,
    )}
    <span class="grow"></span>
    <button class="plain" @click=${done}>Clear</button>
  </div>
`;

/**
 * @param {Context} context
 * @param {string} project
 * @param {Chosen[]} vms
 * @param {import("./vm-actions.js").VmAction} action
 * @param {() => void} done
 */
async function all({api}, project, vms, {verb, text, words, danger = false}, done) {
  const [first] = vms;
  if (!first) return;
  const what = vms.length === 1 ? first.name : counted(vms.length, "VM");
  const sure = await confirm({
    title: `${text}: ${what}`,
    words: html`<p>${words ?? ""}</p><ul class="names">${vms.slice(0, 50).map(({name}) => html`<li>${name}</li>`)}</ul>${vms.length > 50 ? html`<p class="small">and ${vms.length - 50} more</p>` : ""}`,
    button: `${text} ${what}`,
    danger,
    act: async () => true,
    ...(danger ? {name: vms.length === 1 ? first.name : `delete ${vms.length}`} : {}),
  });
  if (!sure) return;
  /** @type {{name: string, why: string}[]} */
  const refused = [];
  const waiting = [...vms];
  const work = async () => {
    for (let vm = waiting.shift(); vm !== undefined; vm = waiting.shift()) {
      const {method, path} = call(project, vm.id, verb);
      try {
        await api.send(method, path, method === "POST" ? {} : null);
      } catch (error) {
        refused.push({name: vm.name, why: asProblem(error).detail});
      }
    }
  };
  await Promise.all(Array.from({length: WIDTH}, work));
  done();
  say(`${text}: ${vms.length - refused.length} of ${vms.length} accepted`, refused.length ? "bad" : "busy");
  if (refused.length === 0) return;
  await open(`${text}: ${counted(refused.length, "VM")} refused`, () => html`
    <div class="dialog-body"><ul class="plain-list">${refused.map(({name, why}) => html`<li><strong>${name}</strong>: ${why}</li>`)}</ul></div>
  `);
}
