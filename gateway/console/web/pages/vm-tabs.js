/** The parts of the page of a VM: what it is, and what its guest shows. Each is made when it is opened, and freed when it is left. */

import {html, nothing, repeat} from "../core/html.js";
import {to} from "../core/links.js";
import "./vm-console.js";
import "./vm-display.js";
import "./vm-guest.js";
import "./vm-log.js";
import "./vm-usage.js";

/**
 * @typedef {object} Tab
 * @property {string} name in the address
 * @property {string} title
 * @property {string} permission
 * @property {(context: Context, vm: VmView, path: string) => unknown} view
 */

/** @type {Tab[]} */
const TABS = [
  {name: "console", title: "Console", permission: "vm.console", view: (_, {phase}, path) => html`<nb-console .model=${{path, phase}}></nb-console>`},
  {name: "display", title: "Display", permission: "vm.console", view: (_, {phase}, path) => html`<nb-display .model=${{path, phase}}></nb-display>`},
  {name: "usage", title: "Usage", permission: "vm.read", view: ({api}, _, path) => html`<nb-usage .model=${{api, path}}></nb-usage>`},
  {name: "log", title: "Console log", permission: "vm.console", view: ({api}, {phase}, path) => html`<nb-console-log .model=${{api, path, phase}}></nb-console-log>`},
  {name: "guest", title: "Guest", permission: "vm.read", view: ({api}, {phase, ready}, path) => html`<nb-guest .model=${{api, path, state: `${phase} ${ready}`}}></nb-guest>`},
];

const PAGE = "/projects/:project/vms/:vm";

/**
 * @param {Context} context
 * @param {VmView} vm
 * @param {string} path of the VM in the API
 * @param {() => unknown} overview
 */
export function tabs(context, vm, path, overview) {
  const {at, me, query} = context;
  if (at !== null) return html`<p class="small">Its console, display, usage, console log and guest are not in the log: they are known for the present only.</p>${overview()}`;
  if (vm.phase === "deleted") return html`<p class="small">It was deleted: it has no console, display, usage, console log or guest any more.</p>${overview()}`;
  const offered = TABS.filter(({permission}) => me.may(permission, vm.project));
  const open = offered.find(({name}) => name === query["tab"]);
  const anchor = (/** @type {string | null} */ name, /** @type {string} */ title) => {
    const address = to(PAGE, {project: vm.project, vm: vm.id}, {tab: name});
    return html`<a href=${address} aria-current=${(open?.name ?? null) === name ? "page" : nothing}>${title}</a>`;
  };
  return html`
    <nav class="tabs" aria-label="Parts of this VM">${anchor(null, "Summary")}${offered.map(({name, title}) => anchor(name, title))}</nav>
    ${open === undefined
      ? overview()
      : repeat([open], ({name}) => `${vm.id} ${name}`, ({title, view}) => html`<section class="tab" aria-label=${title}>${view(context, vm, path)}</section>`)}
  `;
}
