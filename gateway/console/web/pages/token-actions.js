/** What can be done with tokens: issue one, whose secret is shown once; revoke one. */

import {html} from "../core/html.js";
import {ask, once} from "../parts/ask.js";
import {command, quoted} from "../parts/command.js";
import {confirm} from "../parts/confirm.js";
import {body} from "../parts/form.js";
import {say} from "../parts/toast.js";

const DAY = 24 * 60 * 60 * 1000;
const ROLES = ["", "viewer", "member", "admin", "auditor", "operator"];

/**
 * What a token allows, in words.
 * @param {TokenView} token
 */
export const limits = ({project, role, read_only: reads}) =>
  [role ? `no more than ${role}` : "all that its principal may", project ? `in project ${project}` : "", reads ? "reads only" : ""].filter(Boolean).join(", ");

/**
 * Issue a token, and show its secret.
 * @param {Context} context
 * @param {string} principal empty: oneself
 */
export async function issue(context, principal) {
  const {me} = context;
  const others = me.may("token.manage");
  const began = Date.now(); // the same body, however often it is sent
  const made = await ask(context, {
    title: "Issue a token",
    button: "Issue",
    words: html`<p>It allows what its principal may, at any time, and no more than the limits here.</p>`,
    values: {principal, days: "90", role: "", project: "", read_only: "false"},
    fields: () => [
      {name: "name", label: "Name", required: true, placeholder: "laptop", help: "What it is for."},
      ...(others ? [{name: "principal", label: "For", placeholder: me.principal, help: "user:… or service:…; you, if it is empty."}] : []),
      {name: "days", label: "Days that it lasts", type: /** @type {const} */ ("number"), min: 1, max: 366, required: true},
      {name: "role", label: "No more than this role", type: /** @type {const} */ ("select"), options: ROLES.map(value => ({value, text: value || "no limit"}))},
      {name: "project", label: "Only in this project", placeholder: "its id"},
      {name: "read_only", label: "For reading only", type: /** @type {const} */ ("check")},
    ],
    call: form => {
      const days = form.number("days");
      const [name, whose, role, project] = ["name", "principal", "role", "project"].map(each => form.text(each).trim());
      const reads = form.text("read_only") === "true";
      const more = `${whose ? ` --for ${quoted(whose)}` : ""}${days ? ` --days ${days}` : ""}${role ? ` --role ${role}` : ""}${project ? ` --only-project --project ${quoted(project)}` : ""}${reads ? " --read-only" : ""}`;
      return {
        method: "POST",
        path: "/v1/tokens",
        body: body({name, principal: whose, role, project, read_only: reads || null, expires_at: days ? new Date(began + days * DAY).toISOString() : null}),
        cli: `nebula token issue ${quoted(name || "NAME")}${more}`,
      };
    },
  });
  if (made === undefined) return;
  const {secret, secret_withheld: withheld} = made.others;
  const {name, principal: whose} = /** @type {TokenView} */ (made.resource);
  if (typeof secret === "string") await once(`The token ${name}`, html`<p>A token of <code>${whose}</code>.</p>`, secret, "Secret");
  else say(String(withheld), "bad");
}

/**
 * @param {Context} context
 * @param {TokenView} token
 */
export const revoke = ({api, me, refresh}, token) => {
  const path = `/v1/tokens/${encodeURIComponent(token.id)}`;
  const own = me.credential === token.id;
  return confirm({
    title: `Revoke: ${token.name}`,
    words: own ? "You are signed in with this token: all your tabs are signed out within seconds. It is worthless for ever." : `It is worthless for ever, within a second. It belongs to ${token.principal}.`,
    button: "Revoke",
    danger: true,
    name: token.name,
    more: command({method: "DELETE", path, cli: `nebula token revoke ${quoted(token.id)}`}),
    act: async () => {
      await api.send("DELETE", path);
      refresh();
    },
  });
};
