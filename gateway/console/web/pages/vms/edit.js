/** Tags and labels of several VMs: what is added, and what is removed. */

import {html} from "../../core/html.js";
import {counted} from "../../core/format.js";
import {open} from "../../parts/dialog.js";
import {field} from "../../parts/field.js";
import {Form, labels} from "../../parts/form.js";
import {changed} from "./changes.js";
import {Outcomes} from "./outcomes.js";

/** How many tags and labels the dialogue names. */
const NAMED = 20;

const list = (/** @type {string} */ text) => text.split(/[\s,]+/).filter(Boolean);

/**
 * @param {Context} context
 * @param {readonly {id: string, name: string, project: string, tags?: string[], labels?: string[]}[]} vms
 * @param {(outcomes: Outcomes) => void} began
 */
export async function edit(context, vms, began) {
  const what = vms.length === 1 ? vms[0]?.name ?? "" : counted(vms.length, "VM");
  const named = (/** @type {(string[] | undefined)[]} */ each) => [...new Set(each.flatMap(texts => texts ?? []))].sort().slice(0, NAMED).join(", ") || "none";
  const tags = named(vms.map(vm => vm.tags));
  const keys = named(vms.map(vm => vm.labels?.map(label => label.split("=", 1)[0] ?? "")));
  let redraw = () => {};
  const form = new Form({}, () => redraw());
  const found = await open(`Tags and labels: ${what}`, dialog => {
    redraw = dialog.changed;
    const set = labels(form.text("set"));
    const changes = {add: list(form.text("add")), remove: list(form.text("remove")), set: set ?? {}, drop: list(form.text("drop"))};
    const nothingYet = changes.add.length + changes.remove.length + changes.drop.length + Object.keys(changes.set).length === 0;
    const submit = (/** @type {Event} */ event) => {
      event.preventDefault();
      if (set !== null && !nothingYet) dialog.close(changes);
    };
    return html`
      <form class="dialog-form" @submit=${submit}>
        <div class="dialog-body">
          <div>
            ${field(form, {name: "add", label: "Tags to add", help: "Ids of tags, with commas between them."})}
            ${field(form, {name: "remove", label: "Tags to remove", help: `They have: ${tags}`})}
            ${field(form, {name: "set", label: "Labels to set", type: "area", rows: 2, placeholder: "team=blue", ...(set === null ? {hint: "lines of key=value"} : {})})}
            ${field(form, {name: "drop", label: "Labels to remove", help: `Keys. They have: ${keys}`})}
          </div>
          <p class="small">Each VM is read when its turn comes, and only what is not so yet is changed.</p>
        </div>
        <footer class="dialog-foot">
          <button type="button" @click=${() => dialog.close()}>Cancel</button>
          <button type="submit" class="primary" ?disabled=${set === null || nothingYet}>Change ${what}</button>
        </footer>
      </form>
    `;
  });
  if (found === undefined) return;
  const changes = /** @type {import("./changes.js").Changes} */ (found);
  const tasks = vms.map(({id, name, project}) => {
    const path = `/v1/projects/${encodeURIComponent(project)}/vms/${encodeURIComponent(id)}`;
    return {
      name,
      call: async () => {
        /** @type {VmView} */
        const vm = await context.api.get(path, {}, {signal: context.signal});
        const body = changed(vm, changes);
        return body === null ? null : {method: "PATCH", path, body};
      },
    };
  });
  began(new Outcomes(context, "Tags and labels", tasks));
}
