/** Links to other pages of the console. A link to a page that does not exist is shown as its text. */

import {PAGES} from "../pages/index.js";
import {html} from "./html.js";
import {BASE, filled, queryOf} from "./router.js";

/** The moment that is shown, which links keep. @type {{at: string | null}} */
export const shown = {at: null};

const KNOWN = new Set(PAGES.map(page => page.path));

/** @param {string} pattern */
export const exists = pattern => KNOWN.has(pattern);

/**
 * The address of a page. Raises for a parameter that is missing.
 * @param {string} pattern the path of the page, such as `/projects/:project/vms`
 * @param {import("./router.js").Values} values
 * @param {import("./router.js").Query} query
 */
export const to = (pattern, values = {}, query = {}) => BASE + filled(pattern, values) + queryOf({at: shown.at, ...query});

/**
 * @param {string} pattern
 * @param {import("./router.js").Values} values
 * @param {unknown} text
 * @param {import("./router.js").Query} query
 */
export const link = (pattern, values, text, query = {}) =>
  exists(pattern) ? html`<a href=${to(pattern, values, query)}>${text}</a>` : html`${text}`;

/** The page of one resource of each kind, by the name of its parameter. */
export const OF_KIND = /** @type {Record<string, string>} */ ({
  vm: "/projects/:project/vms/:vm",
  project: "/projects/:project",
  node: "/nodes/:node",
  image: "/images/:image",
  flavor: "/flavors/:flavor",
  user: "/users/:user",
  service_account: "/service-accounts/:service_account",
});

/**
 * A link to a resource.
 * @param {string} kind
 * @param {string | null} project
 * @param {string} id
 * @param {unknown} text
 * @param {import("./router.js").Query} query
 */
export function linkTo(kind, project, id, text = id, query = {}) {
  const pattern = OF_KIND[kind];
  return pattern === undefined || id === "" ? html`${text}` : link(pattern, {project: project ?? "", [kind]: id}, text, query);
}

/**
 * The path of one resource in the API; null for what has none.
 * @param {string} kind
 * @param {string} project
 * @param {string} id
 */
export function pathOf(kind, project, id) {
  const pattern = OF_KIND[kind];
  return pattern === undefined || id === "" ? null : `/v1${filled(pattern, {project, [kind]: id})}`;
}

/**
 * A link to the account of a principal.
 * @param {string} principal such as `user:ann`
 */
export function whose(principal) {
  const [sort = "", id = ""] = principal.split(/:(.*)/);
  if (sort === "user") return linkTo("user", null, id, principal);
  return sort === "service" ? linkTo("service_account", null, id, principal) : html`${principal}`;
}
