/** The keys of the list of VMs. They are about the selected rows; without any, about the row that j and k move to. */

import {ACTIONS} from "../vm-actions.js";
import {act} from "./bulk.js";

/** @typedef {import("./model.js").Row} Row */
/**
 * What the keys are about.
 * @typedef {object} Keyed
 * @property {import("../../parts/table.js").Table<Row> | null} table
 * @property {readonly Row[]} shown
 * @property {readonly Row[]} selected
 * @property {(selected: Set<string>) => void} select
 * @property {import("./bulk.js").Began} began
 * @property {(() => void) | null} create null: the caller may create none
 */

/**
 * @param {Context} context
 * @param {Keyed} about
 * @returns {import("../../core/keys.js").Key[]}
 */
export function keysOf(context, {table, shown, selected, select, began, create}) {
  const row = table?.row;
  const step = (/** @type {number} */ by) => () => table?.step(by);
  const search = () => {
    const input = document.querySelector(".filter-search input");
    if (input instanceof HTMLInputElement) input.select();
  };
  const verb = (/** @type {string} */ name) => () => {
    const action = ACTIONS.find(each => each.verb === name);
    const chosen = selected.length > 0 ? selected : row ? [row] : [];
    const able = chosen.filter(({phase, project}) => action?.phases.includes(phase) && context.me.may("vm.operate", project));
    if (action) void act(context, able, action, began);
  };
  const console = () => {
    if (row && context.me.may("vm.console", row.project)) context.go("/projects/:project/vms/:vm", {project: row.project, vm: row.id}, {tab: "console"});
  };
  return [
    {key: "j", words: "Next VM", act: step(1)},
    {key: "k", words: "Previous VM", act: step(-1)},
    {key: "/", words: "Search", act: search},
    ...(context.at === null
      ? [
          {key: "x", words: "Select this VM", act: () => table?.pick()},
          {key: "a", words: "Select all VMs, or none", act: () => select(new Set(selected.length === shown.length ? [] : shown.map(({id}) => id)))},
          {key: "s", words: "Start the selected VMs, or this one", act: verb("start")},
          {key: "S", words: "Stop the selected VMs, or this one", act: verb("stop")},
          {key: "t", words: "Open the console of this VM", act: console},
          ...(create === null ? [] : [{key: "c", words: "Create a VM", act: create}]),
        ]
      : []),
  ];
}
