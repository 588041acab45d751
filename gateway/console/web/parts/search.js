/** The places that Ctrl-K finds: pages, projects, the VMs of the project that is chosen. */

import {exists, to} from "../core/links.js";
import {PAGES} from "../pages/index.js";
import {palette} from "./palette.js";

/** Letters from which on the platform is asked. */
const ENOUGH = 2;

/**
 * @param {import("./frame.js").Frame} app
 */
export function search(app) {
  const {me, project, router, api} = app;
  const places = [
    ...PAGES.filter(({menu, permission}) => menu && (!permission || me?.mayAnywhere(permission))).map(({title, path}) => ({
      text: title,
      act: () => router.go(app.address(path)),
    })),
    ...app.projects.items.map(({id, name}) => ({text: name, note: `project ${id}`, act: () => app.choose(id)})),
    ...(me?.needed ? [{text: "Sign out", act: () => void app.leave()}] : []),
  ];
  return palette(places, async typed => {
    if (typed.length < ENOUGH || project === null || !exists("/projects/:project/vms/:vm")) return [];
    try {
      /** @type {ListOf<VmView>} */
      const {items} = await api.get(`/v1/projects/${encodeURIComponent(project)}/vms`, {limit: 500});
      return items.map(vm => ({
        text: vm.name,
        note: `VM, ${vm.phase}`,
        act: () => router.go(to("/projects/:project/vms/:vm", {project, vm: vm.id})),
      }));
    } catch {
      return [];
    }
  });
}
