/** What can be done with a project. */

import {html} from "../core/html.js";
import {ask} from "../parts/ask.js";
import {command, quoted} from "../parts/command.js";
import {confirm} from "../parts/confirm.js";

const ROLES = ["viewer", "member", "admin"];

/** @param {string} id */
const pathOf = id => `/v1/projects/${encodeURIComponent(id)}`;
/** @param {string} text */
const lines = text => text.split("\n").map(line => line.trim()).filter(Boolean);

/**
 * Change its name, description, tags and keys.
 * @param {Context} context
 * @param {ProjectView} project
 */
export const change = (context, project) =>
  ask(context, {
    title: `Change ${project.name}`,
    button: "Change",
    values: {name: project.name, description: project.description ?? "", tags: project.tags.join("\n"), ssh_keys: project.ssh_keys.join("\n")},
    fields: () => [
      {name: "name", label: "Name", required: true},
      {name: "description", label: "Description"},
      {name: "tags", label: "Tags", type: "area", rows: 2, help: "Ids of tags, one a line."},
      {name: "ssh_keys", label: "SSH keys", type: "area", rows: 4, help: "One a line. New VMs get them; those that exist do not change."},
    ],
    call: form => {
      /** @type {Record<string, unknown>} */
      const wanted = {};
      if (form.text("name").trim() !== project.name) wanted["name"] = form.text("name").trim();
      if (form.text("description").trim() !== (project.description ?? "")) wanted["description"] = form.text("description").trim();
      if (lines(form.text("tags")).join() !== project.tags.join()) wanted["tags"] = lines(form.text("tags"));
      if (lines(form.text("ssh_keys")).join() !== project.ssh_keys.join()) wanted["ssh_keys"] = lines(form.text("ssh_keys"));
      return Object.keys(wanted).length === 0 ? null : {method: "PATCH", path: pathOf(project.id), body: wanted};
    },
  });

/**
 * Give somebody a role.
 * @param {Context} context
 * @param {string} project
 */
export const give = (context, project) =>
  ask(context, {
    title: `Give a role in ${project}`,
    button: "Give",
    words: html`<p>It replaces an earlier role in this project. A viewer sees everything but consoles; a member also makes, runs and deletes VMs; an admin also manages members, images and flavors.</p>`,
    values: {role: "viewer"},
    fields: () => [
      {name: "principal", label: "To whom", required: true, placeholder: "user:ann", help: "user:…, service:… or oidc:…"},
      {name: "role", label: "Role", type: "select", required: true, options: ROLES.map(value => ({value, text: value}))},
    ],
    call: form => {
      const principal = form.text("principal").trim();
      const role = form.text("role");
      return {method: "POST", path: `${pathOf(project)}/bind`, body: {principal, role}, cli: `nebula project bind ${quoted(project)} ${quoted(principal || "PRINCIPAL")} ${role}`};
    },
  });

/**
 * Take a role away.
 * @param {Context} context
 * @param {string} project
 * @param {string} principal
 */
export const take = ({api, refresh}, project, principal) =>
  confirm({
    title: `Take the role of ${principal}`,
    words: `${principal} loses its role in ${project} within a second; its consoles and feeds of this project end.`,
    button: "Take away",
    danger: true,
    more: command({method: "POST", path: `${pathOf(project)}/unbind`, body: {principal}, cli: `nebula project unbind ${quoted(project)} ${quoted(principal)}`}),
    act: async () => {
      await api.send("POST", `${pathOf(project)}/unbind`, {principal});
      refresh();
    },
  });

/**
 * Delete a project. What is still in it, the refusal says.
 * @param {Context} context
 * @param {ProjectView} project
 */
export const remove = ({api, go}, {id, name}) =>
  confirm({
    title: `Delete: ${name}`,
    words: "It must have no VMs, images or flavors. Its members lose their roles.",
    button: "Delete",
    danger: true,
    name: id,
    more: command({method: "DELETE", path: pathOf(id), cli: `nebula project delete ${quoted(id)}`}),
    act: async () => {
      await api.send("DELETE", pathOf(id), null, {wait: 10});
      go("/projects");
    },
  });
