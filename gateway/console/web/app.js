/** The console: who is signed in, which page is shown, what the log says. Pages are in `pages/`, one file each. */

import {Api} from "./core/api.js";
import {render} from "./core/html.js";
import {Keys} from "./core/keys.js";
import {shown, to} from "./core/links.js";
import {Live} from "./core/live.js";
import {Marks} from "./core/marks.js";
import {Past, scopeOf} from "./core/past.js";
import {asProblem, Problem} from "./core/problem.js";
import {Projects} from "./core/projects.js";
import {matched, queryOf, Router} from "./core/router.js";
import {expected, signOut, Watch, whoAmI} from "./core/session.js";
import {Stage} from "./core/stage.js";
import {PAGES} from "./pages/index.js";
import {closeAll} from "./parts/dialog.js";
import {frame} from "./parts/frame.js";
import {help} from "./parts/palette.js";
import {search} from "./parts/search.js";
import {stepped} from "./parts/slider-model.js";
import {say, silence} from "./parts/toast.js";

/** @typedef {import("./core/me.js").Me} Me */

/** Milliseconds between two looks whether the session still holds, after its feed has ended. */
const LOOK = 1000;
/** Milliseconds after which the log is followed, although the first page is not there yet. */
const FIRST = 1000;
const REMEMBERED = "nebula.project";

class App {
  /** @type {Me | null} */ me = null;
  /** Why nobody is signed in. @type {string | null} */ words = null;
  /** Whether it is known who is signed in. */
  known = false;
  /** @type {Problem | null} */ problem = null;
  /** Why a call takes longer. @type {string | null} */ waiting = null;
  /** Whether the menu is open, on a phone. */
  menu = false;
  #planned = false;
  #root = /** @type {HTMLElement} */ (document.getElementById("app"));

  constructor() {
    this.api = new Api({lost: problem => this.lost(problem), waiting: words => this.wait(words)});
    this.session = new Watch(this.api, () => this.changed());
    this.projects = new Projects(this.api, {changed: () => this.changed(), refused: words => say(words, "bad")});
    this.past = new Past(this.api, () => this.changed());
    this.marks = new Marks(this.api, () => this.changed(), () => (this.me?.mayAnywhere("event.read") ?? false) && this.live.state.name !== "lost");
    this.keys = new Keys(() => this.stage.keys);
    this.live = new Live({state: state => this.connection(state), missed: () => void this.stage.read()});
    this.stage = new Stage({render: () => this.changed(), context: (...given) => this.context(...given)});
    this.router = new Router(() => void this.arrived());
    this.live.on(events => {
      this.api.follow(events.at(-1)?.position ?? 0);
      if (events.some(({kind}) => kind === "project")) this.projects.refresh();
      this.stage.live(events);
    });
    this.keys.add([
      {key: "Ctrl+k", words: "Go to a page, a project or a VM", act: () => this.search()},
      {key: "?", words: "Show all keys", act: () => void help(this.keys.all)},
      {key: "n", words: "Go back to now", act: () => this.travel(null)},
      {key: "d", words: "Show what changed between the moment that is shown and now", act: () => this.router.go(this.changes)},
      {key: "[", words: "Go to the moment before the last event", act: () => this.step(-1)},
      {key: "]", words: "Go to the moment after the next event", act: () => this.step(1)},
      ...PAGES.filter(({menu}) => menu).map(({menu, title, path}) => ({
        key: `g ${menu?.key}`,
        words: `Go to ${title}`,
        act: () => this.router.go(this.address(path)),
      })),
    ]);
  }

  async start() {
    if (!this.known) this.#root.replaceChildren();
    if (expected()) void this.projects.known();
    try {
      const found = await whoAmI(this.api);
      this.problem = null;
      this.known = true;
      if (found === null) this.me = null;
      else void this.enter(found);
    } catch (error) {
      this.problem = asProblem(error);
      this.known = false;
      setTimeout(() => void this.start(), LOOK * 2);
    }
    this.changed();
  }

  /**
   * Somebody is signed in. The page is read first, then all that is around it.
   * @param {{me: Me, session: SessionView | null}} found
   */
  async enter({me, session}) {
    this.me = me;
    this.words = null;
    const after = this.api.position;
    void this.session.start(session);
    void this.projects.known();
    this.live.state = {name: "connecting"};
    await Promise.race([this.arrived(), new Promise(resolve => setTimeout(resolve, FIRST))]);
    if (this.me !== me) return;
    this.follow(after);
    void this.marks.start();
  }

  /**
   * Follow the log. Who has no role yet would be refused: the page finds out when it is opened again.
   * @param {number} after
   */
  follow(after) {
    if (this.me?.mayAnywhere("event.read")) this.live.start(this.me.principal, after);
    else this.live.state = {name: "off", words: "you have no role that may read the log"};
  }

  /** The session has ended, here or elsewhere. @param {Problem} problem */
  lost(problem) {
    closeAll();
    silence();
    this.me = null;
    this.words = problem.detail;
    this.api.begun(null);
    this.live.stop();
    this.session.stop();
    this.marks.stop();
    this.projects.forget();
    this.stage.close();
    this.changed();
  }

  async leave() {
    try {
      await signOut(this.api);
    } catch (error) {
      say(asProblem(error).detail, "bad");
      return;
    }
    this.live.stop(true);
    this.lost(new Problem(401, "signed_out", "You are signed out."));
  }

  /** @param {import("./core/feed.js").LiveState} state */
  connection(state) {
    this.changed();
    // What could not be read while nobody answered can be read now.
    if (state.name === "live" && [0, 502, 503].includes(this.stage.shown.problem?.status ?? -1)) this.retry();
    if (state.name === "ended" && this.me !== null) setTimeout(() => void this.again(), LOOK);
  }

  /** Try again what could not be read. A browser does not load a module again that it could not load. */
  retry() {
    if (this.stage.shown.page === null && this.live.state.name === "live") this.router.reload();
    else void this.stage.read();
  }

  /** The feed has ended: the session has, too, or its rights are others now. */
  async again() {
    if (this.me === null) return;
    try {
      const found = await whoAmI(this.api);
      if (found === null) {
        this.lost(new Problem(401, "unauthorized", this.live.state.words === "signed out" ? "You are signed out." : await this.why()));
        return;
      }
      this.me = found.me;
      this.follow(this.api.position);
      this.projects.refresh();
      await this.stage.read();
    } catch {
      setTimeout(() => void this.again(), LOOK);
    }
  }

  /** Why the session has ended, in the words of the platform. */
  async why() {
    try {
      await this.api.call("GET", "/v1/session");
    } catch (error) {
      return `Your session has ended: ${asProblem(error).detail}`;
    }
    return "Your session has ended.";
  }

  /** The project of the page, or the one that was looked at before. */
  get project() {
    const here = this.stage.shown.context?.params["project"];
    const remembered = here ?? localStorage.getItem(REMEMBERED);
    const {items} = this.projects;
    return items.some(({id}) => id === remembered) ? remembered ?? null : (here ?? items[0]?.id ?? null);
  }

  /**
   * The address of a page of the menu: with the project that is chosen.
   * @param {string} path
   * @param {string | null} project
   */
  address(path, project = this.project) {
    if (!path.includes(":project")) return to(path);
    return project === null ? to("/") : to(path, {project});
  }

  /**
   * Another project: the same page there, if it is one of a whole project.
   * @param {string} project
   */
  choose(project) {
    localStorage.setItem(REMEMBERED, project);
    const path = this.stage.shown.entry?.path ?? "";
    const whole = path.includes(":project") && !path.replace(":project", "").includes(":");
    this.router.go(whole ? to(path, {project}) : this.address("/projects/:project/vms", project));
  }

  /** The address has changed. Resolves when its page has been read. */
  async arrived() {
    this.menu = false;
    if (this.me === null) {
      this.changed();
      return;
    }
    const {path, query} = this.router;
    void this.past.arrive(query["at"]);
    for (const entry of PAGES) {
      const params = matched(entry.path, path);
      if (params === null) continue;
      if (params["project"]) localStorage.setItem(REMEMBERED, params["project"]);
      await this.stage.open(entry, path, params, query);
      return;
    }
    await this.stage.open(null, path, {}, query);
  }

  /**
   * Show another moment of the same page; null for now.
   * @param {string | null} at
   */
  travel(at) {
    if (at === shown.at) return;
    const {at: _, ...query} = this.router.query;
    this.router.go(location.pathname + queryOf({...query, at}), {replace: at !== null && shown.at !== null});
  }

  /**
   * Show the moment some events earlier or later.
   * @param {number} events
   */
  step(events) {
    if (this.me !== null) this.travel(stepped(shown.at, events, this.marks.items, this.api.position));
  }

  /** The address of what changed between the moment that is shown and now, of what the page is about. */
  get changes() {
    const {entry, context} = this.stage.shown;
    return to("/diff", {}, {...scopeOf(entry?.path ?? "", context?.params ?? {}), from: shown.at, at: null});
  }

  /**
   * What a page gets.
   * @param {Record<string, string>} params
   * @param {Record<string, string>} query
   * @param {AbortSignal} signal
   * @returns {Context}
   */
  context(params, query, signal) {
    const {api, live, keys} = this;
    return {
      ...{api, live, keys, params, query, signal, at: shown.at, me: /** @type {Me} */ (this.me)},
      projects: () => this.projects.known(),
      go: (path, values, more) => this.router.go(to(path, values, more)),
      ask: values => {
        const {at: _, ...others} = this.router.query;
        this.router.go(location.pathname + queryOf({...others, ...values, at: shown.at}), {replace: true});
      },
      travel: at => this.travel(at),
      changed: () => this.changed(),
      refresh: () => this.stage.refresh(),
    };
  }

  search() {
    if (this.me !== null && !document.querySelector("dialog[open]")) void search(this);
  }

  /** @param {string | null} words */
  wait(words) {
    this.waiting = words;
    this.changed();
  }

  /** Render, once, when what runs now has ended. */
  changed() {
    if (this.#planned) return;
    this.#planned = true;
    queueMicrotask(() => {
      this.#planned = false;
      render(frame(this), this.#root);
    });
  }
}

void new App().start();
