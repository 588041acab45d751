/** One account: its roles in the cloud and in projects, its tokens, what it did. */

import {html, nothing} from "../core/html.js";
import {ago, counted, moment, words} from "../core/format.js";
import {link, linkTo} from "../core/links.js";
import {newest} from "../core/newest.js";
import {ask} from "../parts/ask.js";
import {badge, facts} from "../parts/badge.js";
import {command, quoted} from "../parts/command.js";
import {confirm} from "../parts/confirm.js";
import {itemOf, timeline} from "../parts/timeline.js";
import {issue, limits, revoke} from "./token-actions.js";

const EVENTS = 20;
const ROLES = ["auditor", "operator"];

/** @typedef {import("./accounts.js").Sort} Sort */
/**
 * @typedef {object} One
 * @property {AccountView} account
 * @property {TokenView[]} tokens
 * @property {{project: ProjectView, role: string}[]} member
 * @property {import("../parts/timeline.js").Item[]} events
 */

/**
 * @param {Sort} sort
 * @returns {Page<One>}
 */
export const account = sort => ({
  title: ({params}, data) => data?.account.name ?? params[sort.kind] ?? sort.title,

  async load(context) {
    const {api, params, signal} = context;
    const id = params[sort.kind] ?? "";
    const principal = `${sort.principal}${id}`;
    const [found, tokens, projects, events] = await Promise.all([
      /** @type {Promise<AccountView>} */ (api.get(pathOf(sort, id), {}, {signal})),
      /** @type {Promise<ListOf<TokenView>>} */ (api.get("/v1/tokens", {principal, limit: 500}, {signal})),
      /** @type {Promise<ListOf<ProjectView>>} */ (api.get("/v1/projects", {limit: 500}, {signal})),
      newest(context, {actor: principal}, EVENTS),
    ]);
    const member = projects.items.flatMap(project => project.members.filter(each => each.principal === principal).map(({role}) => ({project, role})));
    return {account: found, tokens: tokens.items, member, events: events.map(itemOf)};
  },

  live({kind, id, actor}, context, {account: {id: own}}) {
    if ((kind === sort.kind && id === own) || kind === "token" || kind === "project" || actor === `${sort.principal}${own}`) context.refresh();
  },

  view(context, {account: one, tokens, member, events}) {
    const {me, at} = context;
    const principal = `${sort.principal}${one.id}`;
    const may = at === null && me.may("user.manage");
    return html`
      <nav class="crumbs" aria-label="Path">${link(sort.page.replace(/\/:.*/, ""), {}, sort.title)}</nav>
      <header class="page-head">
        <h1>${one.name}</h1> ${badge(one.disabled ? "disabled" : "active")}
        <span class="grow"></span>
        ${may ? actions(context, sort, one) : nothing}
      </header>
      <div class="cards">
        <section class="card" aria-labelledby="what"><h2 id="what">Who it is</h2>
          ${facts([["Principal", html`<code>${principal}</code>`], ["Created", moment(one.created_at)]])}
        </section>
        <section class="card" aria-labelledby="roles"><h2 id="roles">Roles</h2>
          <ul class="plain-list">
            ${one.roles.map(role => html`<li>${words(role)} of the cloud ${may ? html`<button class="danger-text" @click=${() => void act(context, sort, one, "unbind", {role}, `It loses the role ${role} within a second.`, `Take the role ${role}`)}>Take ${role}</button>` : nothing}</li>`)}
            ${member.map(({project, role}) => html`<li>${words(role)} of ${linkTo("project", null, project.id, project.name)}</li>`)}
          </ul>
          ${one.roles.length + member.length === 0 ? html`<p class="small">It has none, so it may do nothing. Members get theirs on the page of a project.</p>` : nothing}
          ${may
            ? ROLES.filter(role => !one.roles.includes(role)).map(role => html`<button @click=${() => void act(context, sort, one, "bind", {role}, role === "operator" ? "It may do everything in the whole cloud." : "It may see everything in the whole cloud.", `Give the role ${role}`)}>Give ${role}</button>`)
            : nothing}
        </section>
        <section class="card wide" aria-labelledby="tokens"><h2 id="tokens">${counted(tokens.length, "token")}</h2>
          <ul class="plain-list">
            ${tokens.map(
              token => html`<li><strong>${token.name}</strong> <span class="small">${limits(token)}; expires ${ago(token.expires_at)}; last used ${token.last_used_at ? ago(token.last_used_at) : "never"}</span>
                ${at === null && (me.may("token.manage") || me.principal === principal) ? html`<button class="danger-text" aria-label="Revoke ${token.name}" @click=${() => void revoke(context, token)}>Revoke</button>` : nothing}</li>`,
            )}
          </ul>
          ${at === null && (me.may("token.manage") || me.principal === principal) && !me.readOnly ? html`<button @click=${() => void issue(context, principal)}>Issue a token</button>` : nothing}
        </section>
        <section class="card wide" aria-labelledby="did"><h2 id="did">What it did</h2>
          ${events.length === 0 ? html`<p class="small">Nothing yet.</p>` : timeline(events, {subject: item => html`${item.kind} ${linkTo(item.kind, item.project, item.id)}`, go: position => context.travel(String(position))})}
          <p class="small">${link("/log", {}, "All that it did", {actor: principal})}</p>
        </section>
      </div>
    `;
  },
});

/** @param {Sort} sort @param {string} id */
const pathOf = (sort, id) => `${sort.path}/${encodeURIComponent(id)}`;

/**
 * @param {Context} context
 * @param {Sort} sort
 * @param {AccountView} one
 * @param {string} verb
 * @param {Record<string, string>} body
 * @param {string} said
 * @param {string} title
 */
const act = ({api, refresh}, sort, one, verb, body, said, title) =>
  confirm({
    title: `${title}: ${one.name}`,
    words: said,
    button: title,
    danger: verb === "unbind" || verb === "disable",
    more: command({method: "POST", path: `${pathOf(sort, one.id)}/${verb}`, body, cli: `nebula ${sort.cli} ${verb} ${quoted(one.id)}${body["role"] ? ` ${body["role"]}` : ""}`}),
    act: async () => {
      await api.send("POST", `${pathOf(sort, one.id)}/${verb}`, body);
      refresh();
    },
  });

/** @param {Context} context @param {Sort} sort @param {AccountView} one */
function actions(context, sort, one) {
  const path = pathOf(sort, one.id);
  const rename = () =>
    void ask(context, {
      title: `Rename ${one.name}`,
      button: "Rename",
      values: {name: one.name},
      fields: () => [{name: "name", label: "Name", required: true}],
      call: form => ({method: "PATCH", path, body: {name: form.text("name").trim()}, cli: `nebula ${sort.cli} rename ${quoted(one.id)} ${quoted(form.text("name").trim() || "NAME")}`}),
    });
  const remove = () =>
    void confirm({
      title: `Delete: ${one.name}`,
      words: "Its tokens become worthless. It must have no role in a project.",
      button: "Delete",
      danger: true,
      name: one.id,
      more: command({method: "DELETE", path, cli: `nebula ${sort.cli} delete ${quoted(one.id)}`}),
      act: async () => {
        await context.api.send("DELETE", path, null, {wait: 10});
        context.go(sort.page.replace(/\/:.*/, ""));
      },
    });
  return html`
    <button @click=${rename}>Rename</button>
    ${one.disabled
      ? html`<button @click=${() => void act(context, sort, one, "enable", {}, "Its roles and tokens work again.", "Enable")}>Enable</button>`
      : html`<button class="danger-text" @click=${() => void act(context, sort, one, "disable", {}, "It keeps its roles and tokens, and may do nothing. What it has open ends within a second.", "Disable")}>Disable</button>`}
    <button class="danger-text" @click=${remove}>Delete</button>
  `;
}
