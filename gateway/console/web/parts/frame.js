/** What is around every page: the menu, the project, the state of the connection, the moment that is shown. */

import {html, icon, nothing} from "../core/html.js";
import {ago} from "../core/format.js";
import {shown, to} from "../core/links.js";
import {PAGES} from "../pages/index.js";
import {signin} from "../pages/signin.js";
import {empty, refusal} from "./badge.js";
import "./menu.js";
import "./slider.js";

/**
 * What the frame needs of the console.
 * @typedef {object} Frame
 * @property {import("../core/me.js").Me | null} me
 * @property {boolean} known
 * @property {string | null} words
 * @property {import("../core/problem.js").Problem | null} problem
 * @property {import("../core/projects.js").Projects} projects
 * @property {string | null} project
 * @property {import("../core/marks.js").Marks} marks
 * @property {import("../core/past.js").Past} past
 * @property {string | null} waiting
 * @property {import("../core/session.js").Watch} session
 * @property {boolean} menu
 * @property {import("../core/api.js").Api} api
 * @property {import("../core/live.js").Live} live
 * @property {import("../core/stage.js").Stage} stage
 * @property {import("../core/router.js").Router} router
 * @property {(path: string) => string} address
 * @property {string} changes
 * @property {(project: string) => void} choose
 * @property {(at: string | null) => void} travel
 * @property {() => Promise<void>} leave
 * @property {() => Promise<void>} start
 * @property {() => void} search
 * @property {() => void} retry
 * @property {() => void} changed
 */

/** @param {Frame} app */
export function frame(app) {
  if (app.problem !== null) return html`<main class="alone"><h1>Nebula</h1>${refusal(app.problem)}<p class="small">Trying again…</p></main>`;
  if (!app.known) return html`<p class="starting">Nebula starts…</p>`;
  if (app.me === null) return signin(app);
  return html`
    <a class="skip" href="#main" @click=${skip}>Skip to the content</a>
    ${top(app)} ${side(app)}
    <div class="middle">
      ${moment(app)}
      <main id="main" tabindex="-1">${page(app)}</main>
    </div>
  `;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

/** @param {Frame} app */
function top(app) {
  const me = /** @type {import("../core/me.js").Me} */ (app.me);
  const open = () => {
    app.menu = !app.menu;
    app.changed();
  };
  return html`
    <header class="top">
      <button class="plain phone" aria-label="Menu" aria-expanded=${app.menu} @click=${open}>${icon("menu")}</button>
      <a class="brand" href=${to("/")} aria-label="Nebula">${icon("nebula")}<span>Nebula</span></a>
      ${app.projects.items.length > 0
        ? html`
            <select class="project" aria-label="Project" @change=${(/** @type {Event} */ event) => app.choose(/** @type {HTMLSelectElement} */ (event.target).value)}>
              ${app.projects.items.map(({id, name}) => html`<option value=${id} ?selected=${id === app.project}>${name}</option>`)}
            </select>
          `
        : nothing}
      <button class="search" aria-label="Go to… (Ctrl K)" @click=${() => app.search()}>${icon("search")}<span>Go to…</span><kbd>Ctrl K</kbd></button>
      <span class="grow"></span>
      ${connection(app)}
      <nb-menu .model=${{
        label: `Account ${me.principal}`,
        text: html`${icon("user")}<span class="no-phone">${me.principal}</span>`,
        end: true,
        actions: [
          {text: `${me.principal}: ${me.words}${me.readOnly ? ", reads only" : ""}`, act: () => {}, refused: me.expires ? `token expires ${ago(me.expires)}` : " "},
          ...(me.needed ? [{text: "Sign out", act: () => void app.leave()}] : []),
        ],
      }}></nb-menu>
    </header>
  `;
}

/** @param {Frame} app */
function connection({live, waiting, session}) {
  const {name, words = "", since} = live.state;
  const says = {off: "Not connected", connecting: "Connecting…", live: "Live", behind: "Catching up…", lost: "Connection lost", ended: "Ended"}[name];
  const more = name === "lost" && since ? `for ${ago(new Date(since).toISOString()).replace(" ago", "")}: ${words}` : words;
  return html`
    ${waiting === null ? nothing : html`<span class="waiting-words" role="status">${waiting}</span>`}
    ${session.words === null ? nothing : html`<span class="waiting-words" role="status">${session.words} Sign out and in again to go on.</span>`}
    <span class="connection ${name}" role="status" title=${more}><i aria-hidden="true"></i><span class=${name === "live" || name === "connecting" ? "no-phone" : ""}>${says}</span></span>
    ${name === "lost" ? html`<button class="small-button" @click=${() => live.again()}>Try now</button>` : nothing}
  `;
}

/** @param {Frame} app */
function side(app) {
  const here = app.stage.shown.entry?.path ?? "";
  return html`
    <nav class="side ${app.menu ? "open" : ""}" aria-label="Pages">
      ${PAGES.filter(({menu, permission}) => menu && (permission === undefined || app.me?.mayAnywhere(permission))).map(
        ({path, title, menu}) => html`
          <a href=${app.address(path)} aria-current=${here === path || (path !== "/" && here.startsWith(`${path}/`)) ? "page" : nothing}>
            ${icon(menu?.icon ?? "page")}<span>${title}</span>
          </a>
        `,
      )}
    </nav>
  `;
}

/** @param {Frame} app */
function moment(app) {
  const {at} = shown;
  return html`
    ${app.past.odd === null
      ? nothing
      : html`<p class="note" role="status">“${app.past.odd}” in the address is no moment: that is a position of the log, such as 17, or a time, such as 2026-01-31T12:00:00Z. You see what is now.</p>`}
    ${at === null
      ? nothing
      : html`
          <div class="band" role="status">
            ${icon("past")}<span>${app.past.words}</span>
            ${app.me?.mayAnywhere("event.read") ? html`<a class="button" href=${app.changes}>What changed since <kbd>d</kbd></a>` : nothing}
            <button @click=${() => app.travel(null)}>Back to now <kbd>n</kbd></button>
          </div>
        `}
    <nb-slider .model=${{end: Math.max(1, app.api.position), at, marks: app.marks.items, go: (/** @type {string | null} */ to) => app.travel(to)}}></nb-slider>
  `;
}

/** @param {Frame} app */
function page(app) {
  const {stage} = app;
  const {entry, page: module, context, data, problem, loading, present} = stage.shown;
  if (entry === null) {
    if (!loading && context === null) return nothing;
    document.title = "No such page · Nebula";
    return html`<h1 class="unseen">No such page</h1>${empty("No page has this address", "It may have been mistyped.", html`<a class="button" href=${to("/")}>Overview</a>`)}`;
  }
  document.title = `${module?.title?.(/** @type {Context} */ (context), /** @type {never} */ (data)) ?? entry.title} · Nebula`;
  const again = html`<button @click=${() => app.retry()}>Try again</button>`;
  if (problem?.status === 400 && problem.errors.some(({field}) => field === "at")) {
    return empty("There is no such moment", problem.errors.map(({detail}) => detail).join("; "), html`<button @click=${() => context?.travel(null)}>Show what is now</button>`);
  }
  if (problem !== null && (data === undefined || module === null)) return html`<h1>${entry.title}</h1>${refusal(problem, again)}`;
  if (module === null || context === null || data === undefined) {
    return html`<div class="loading" aria-busy="true"><h1>${entry.title}</h1><p class="small">Reading…</p></div>`;
  }
  return html`
    ${problem !== null ? refusal(problem, again) : nothing}
    ${present ? html`<p class="note" role="status">Some of this page is as it is now: this gateway does not know how it was then.</p>` : nothing}
    <div class=${loading ? "page stale" : "page"} aria-busy=${loading}>${module.view(context, /** @type {never} */ (data))}</div>
  `;
}
