/** The actions on the page of a VM: buttons for what is usual and possible, and a menu with all others, which says why not. */

import {html, nothing, repeat} from "../core/html.js";
import {Problem} from "../core/problem.js";
import "../parts/menu.js";
import {sayRefused} from "../parts/toast.js";
import {ACTIONS, run} from "./vm-actions.js";
import {change, forget, resize} from "./vm-forms.js";
import {power} from "./vm-power.js";
import {rebuild} from "./vm-rebuild.js";

/** The verbs that have a button while they are possible; the others are in the menu. */
const BUTTONS = ["start", "stop", "restart", "resume"];
/** What a verb needs besides its own permission: only who knows the nodes knows that one never comes back. @type {Record<string, string>} */
const NEEDS = {forget: "node.manage"};

/** @typedef {import("./vm-actions.js").VmAction} VmAction */
/** The verbs that have a dialogue of their own. @type {Record<string, (context: Context, vm: VmView, action: VmAction, judged?: VerbView) => Promise<Operation | undefined>>} */
const FORMS = {stop: power, restart: power, rescue: power, unrescue: power, change, resize, rebuild, forget};

/**
 * The verbs that the caller may use, as the platform judges them now.
 * @param {Context} context
 * @param {string} path of the VM in the API
 * @returns {Promise<VerbView[] | null>} null: the gateway does not say
 */
export async function verbsOf({api, signal}, path) {
  try {
    /** @type {{items: VerbView[]}} */
    const {items} = await api.get(`${path}/verbs`, {}, {signal});
    return items;
  } catch (error) {
    if (error instanceof Problem && (error.status === 404 || error.status === 410 || error.status === 503)) return null;
    throw error;
  }
}

/**
 * @param {Context} context
 * @param {VmView} vm
 * @param {VerbView[] | null} verbs
 * @param {(operation: string) => void} sent called with the id of the operation
 */
export function actions(context, vm, verbs, sent) {
  if (vm.phase === "deleted") return nothing;
  const act = async (/** @type {VmAction} */ action, /** @type {VerbView | undefined} */ judged) => {
    try {
      const operation = await (FORMS[action.verb] ?? run)(context, vm, action, judged);
      if (operation) sent(operation.id);
      context.refresh();
    } catch (error) {
      sayRefused(error);
    }
  };
  const offered = ACTIONS.flatMap(action => {
    const judged = verbs?.find(({verb}) => verb === action.verb);
    if (verbs !== null && judged === undefined) return []; // the role does not have it
    const needed = NEEDS[action.verb];
    if (needed && !context.me.mayAnywhere(needed)) return [];
    const possible = judged ? judged.accepted || judged.forced?.accepted === true : action.phases.includes(vm.phase);
    return [{action, judged, refused: possible ? null : (judged?.why ?? `not while it is ${vm.phase}`)}];
  });
  const buttons = offered.filter(({action, refused}) => BUTTONS.includes(action.verb) && refused === null);
  const others = offered.filter(each => !buttons.includes(each));
  return html`
    ${repeat(buttons, ({action}) => action.verb, ({action, judged}) => html`<button @click=${() => void act(action, judged)}>${action.text}</button>`)}
    ${others.length === 0
      ? nothing
      : html`<nb-menu .model=${{
          label: "More actions",
          end: true,
          actions: others.map(({action, judged, refused}) => ({text: action.text, refused, danger: action.danger ?? false, act: () => void act(action, judged)})),
        }}></nb-menu>`}
  `;
}
