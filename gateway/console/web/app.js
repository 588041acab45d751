/** The console: who is signed in, which page is shown, what the log says. Pages are in `pages/`, one file each. */

import {Api} from "./core/api.js";
import {render} from "./core/html.js";
import {Keys} from "./core/keys.js";
import {shown, to} from "./core/links.js";
import {Live} from "./core/live.js";
import {asProblem, Problem} from "./core/problem.js";
import {matched, queryOf, Router} from "./core/router.js";
import {signOut, Watch, whoAmI} from "./core/session.js";
import {Stage} from "./core/stage.js";
import {describe, momentOf} from "./core/time.js";
import {PAGES} from "./pages/index.js";
import {closeAll} from "./parts/dialog.js";
import {frame} from "./parts/frame.js";
import {help} from "./parts/palette.js";
import {search} from "./parts/search.js";
import {say} from "./parts/toast.js";

/** @typedef {import("./core/me.js").Me} Me */

/** Milliseconds between two looks whether the session still holds, after its feed has ended. */
const LOOK = 1000;
/** Milliseconds between two readings of the marks. */
const MARKS = 10_000;
const REMEMBERED = "nebula.project";

class App {
  /** @type {Me | null} */ me = null;
  /** Why nobody is signed in. @type {string | null} */ words = null;
  /** Whether it is known who is signed in. */
  known = false;
  /** @type {Problem | null} */ problem = null;
  /** @type {ProjectView[]} */ projects = [];
  /** @type {import("./parts/slider.js").Mark[]} */ marks = [];
  /** @type {import("./core/time.js").Moment | null} */ moment = null;
  /** Why a call takes longer. @type {string | null} */ waiting = null;
  /** Whether the menu is open, on a phone. */
  menu = false;
  #planned = false;
  /** The position of the log when the marks were read. */
  #marked = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #marking;
  #root = /** @type {HTMLElement} */ (document.getElementById("app"));

  constructor() {
    this.api = new Api({lost: problem => this.lost(problem), waiting: words => this.wait(words)});
    this.session = new Watch(this.api, () => this.changed());
    this.keys = new Keys(() => this.stage.keys);
    this.live = new Live({state: state => this.connection(state), missed: () => void this.stage.read()});
    this.stage = new Stage({render: () => this.changed(), context: (...given) => this.context(...given)});
    this.router = new Router(() => this.arrived());
    this.live.on(events => {
      this.api.follow(events.at(-1)?.position ?? 0);
      this.stage.live(events);
      if (events.some(({kind}) => kind === "project")) void this.readProjects();
    });
    this.keys.add([
      {key: "Ctrl+k", words: "Go to a page, a project or a VM", act: () => this.search()},
      {key: "?", words: "Show all keys", act: () => void help(this.keys.all)},
      {key: "n", words: "Go back to now", act: () => this.travel(null)},
      ...PAGES.filter(({menu}) => menu).map(({menu, title, path}) => ({
        key: `g ${menu?.key}`,
        words: `Go to ${title}`,
        act: () => this.router.go(this.address(path)),
      })),
    ]);
  }

  async start() {
    if (!this.known) this.#root.replaceChildren();
    try {
      this.me = await whoAmI(this.api);
      this.problem = null;
    } catch (error) {
      this.problem = asProblem(error);
      setTimeout(() => void this.start(), LOOK * 2);
    }
    this.known = this.problem === null;
    if (this.me !== null) await this.enter();
    this.changed();
  }

  /** Somebody is signed in. */
  async enter() {
    void this.session.start();
    const me = /** @type {Me} */ (this.me);
    this.words = null;
    const after = this.api.position;
    await this.readProjects();
    this.live.start(me.principal, after);
    void this.readMarks();
    this.arrived();
  }

  /** The session has ended, here or elsewhere. @param {Problem} problem */
  lost(problem) {
    closeAll();
    this.me = null;
    this.words = problem.detail;
    this.api.begun(null);
    this.live.stop();
    this.session.stop();
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
    if (state.name === "ended" && this.me !== null) setTimeout(() => void this.again(), LOOK);
  }

  /** The feed has ended: the session has, too, or its rights are others now. */
  async again() {
    if (this.me === null) return;
    try {
      const me = await whoAmI(this.api);
      if (me === null) {
        this.lost(new Problem(401, "unauthorized", this.live.state.words === "signed out" ? "You are signed out." : await this.why()));
        return;
      }
      this.me = me;
      this.live.start(me.principal, this.api.position);
      await this.readProjects();
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

  async readProjects() {
    try {
      /** @type {ListOf<ProjectView>} */
      const {items} = await this.api.get("/v1/projects", {limit: 500}, {now: true});
      this.projects = items;
    } catch (error) {
      if (asProblem(error).status !== 401) say(asProblem(error).detail, "bad");
    }
    this.changed();
  }

  /** What the slider shows; without an answer, a plain line. It is read again while the log grows. */
  async readMarks() {
    clearTimeout(this.#marking);
    if (this.me === null) return;
    if (this.api.position !== this.#marked && !document.hidden) {
      this.#marked = this.api.position;
      try {
        /** @type {ListOf<import("./parts/slider.js").Mark>} */
        const {items} = await this.api.get("/v1/marks", {buckets: 200}, {now: true});
        this.marks = items;
      } catch {
        this.marks = [];
      }
      this.changed();
    }
    this.#marking = setTimeout(() => void this.readMarks(), MARKS);
  }

  /** The project of the page, or the one that was looked at before. */
  get project() {
    const here = this.stage.shown.context?.params["project"];
    const remembered = here ?? localStorage.getItem(REMEMBERED);
    return this.projects.some(({id}) => id === remembered) ? remembered ?? null : (here ?? this.projects[0]?.id ?? null);
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

  /** The address has changed. */
  arrived() {
    this.menu = false;
    if (this.me === null) {
      this.changed();
      return;
    }
    const {path, query} = this.router;
    const at = momentOf(query["at"]);
    if (at !== shown.at) void this.arrivedAt(at);
    for (const entry of PAGES) {
      const params = matched(entry.path, path);
      if (params === null) continue;
      if (params["project"]) localStorage.setItem(REMEMBERED, params["project"]);
      void this.stage.open(entry, path, params, query);
      return;
    }
    void this.stage.open(null, path, {}, query);
  }

  /** @param {string | null} at */
  async arrivedAt(at) {
    shown.at = at;
    this.api.at = at;
    this.moment = null;
    document.documentElement.toggleAttribute("data-past", at !== null);
    if (at === null) return;
    try {
      const moment = await describe(this.api, at, AbortSignal.timeout(10_000));
      if (at === shown.at) this.moment = moment;
    } catch {
      // the band then shows the position only
    }
    this.changed();
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
