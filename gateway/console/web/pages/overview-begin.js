/** What to do first in a new cloud, as long as something is missing that each VM needs. */

import {html, nothing} from "../core/html.js";
import {link} from "../core/links.js";
import {badge} from "../parts/badge.js";

/**
 * @param {Context} context
 * @param {{nodes: NodeView[] | null, projects: ProjectView[], images: boolean | null, vms: number}} has
 */
export function begin({me, at}, {nodes, projects, images, vms}) {
  if (at !== null) return nothing;
  const first = projects[0];
  const steps = [
    {
      done: projects.length > 0,
      text: "A project, which has VMs, members and SSH keys",
      how: me.may("project.manage") ? link("/projects", {}, "Create a project") : "An operator makes one, or gives you a role in one.",
    },
    {
      done: nodes === null || nodes.length > 0,
      text: "A host, which runs VMs",
      how: me.may("node.manage") ? html`${link("/nodes", {}, "Add a host")}, or <code>nebula node token</code>` : "An operator adds one.",
    },
    {
      done: images !== false,
      text: "An image, from which disks are made",
      how: me.mayAnywhere("image.manage") ? html`${link("/images", {}, "Register an image")}, or <code>nebula image create</code>` : "An operator registers one.",
    },
    {
      done: vms > 0,
      text: "The first VM",
      how: first && me.mayAnywhere("vm.create") ? link("/projects/:project/vms", {project: first.id}, `Create a VM in ${first.name}`) : "Somebody who may create VMs does this.",
    },
  ];
  if (steps.every(({done}) => done)) return nothing;
  const next = steps.findIndex(({done}) => !done);
  return html`
    <section class="card wide" aria-labelledby="begin">
      <h2 id="begin">Begin here</h2>
      <ol class="plain-list">
        ${steps.map(
          ({done, text, how}, number) => html`
            <li>${badge(done ? "done" : number === next ? "next" : "later", done ? "good" : number === next ? "busy" : "still")} ${text}${done ? nothing : html`: ${how}`}</li>
          `,
        )}
      </ol>
    </section>
  `;
}
