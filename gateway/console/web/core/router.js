/** Addresses: `/console/<path of a page>?at=…&…`. The first part is pure; `Router` is the part that knows the browser. */

export const BASE = "/console";

/** @typedef {Record<string, string>} Values */
/** @typedef {Record<string, string | number | boolean | null | undefined>} Query */

/**
 * The values of a path's parameters; null if it is another path.
 * @param {string} pattern such as `/projects/:project/vms`
 * @param {string} path without query
 * @returns {Values | null}
 */
export function matched(pattern, path) {
  const wanted = pattern.split("/");
  const given = path.split("/");
  if (wanted.length !== given.length) return null;
  /** @type {Values} */
  const found = {};
  for (const [at, part] of wanted.entries()) {
    const value = /** @type {string} */ (given[at]);
    if (!part.startsWith(":")) {
      if (part !== value) return null;
      continue;
    }
    const decoded = plain(value);
    if (decoded === null) return null;
    found[part.slice(1)] = decoded;
  }
  return found;
}

/**
 * A part of a path, decoded. null for what can be no id: nothing, a dot, two dots, what has a slash.
 * @param {string} part
 */
function plain(part) {
  try {
    const decoded = decodeURIComponent(part);
    return decoded === "" || decoded === "." || decoded === ".." || /[/\\]/.test(decoded) ? null : decoded;
  } catch {
    return null;
  }
}

/**
 * A path with its parameters filled in. Raises for one that is missing.
 * @param {string} pattern
 * @param {Values} values
 */
export function filled(pattern, values = {}) {
  return pattern.replaceAll(/:([a-z_]+)/g, (_, /** @type {string} */ name) => {
    const value = values[name];
    if (value === undefined || value === "" || value === "." || value === "..") throw new Error(`${pattern} needs ${name}`);
    return encodeURIComponent(value);
  });
}

/**
 * A query string with its question mark; nothing for no values. Values that are null, undefined, false or empty are left out.
 * @param {Query} query
 */
export function queryOf(query = {}) {
  const found = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  if (found.length === 0) return "";
  return `?${new URLSearchParams(found.map(([name, value]) => [name, String(value)])).toString()}`;
}

/**
 * Where to go after signing in: an address of the console, or its first page.
 * @param {string | null | undefined} to
 */
export function safe(to) {
  if (!to || !to.startsWith(`${BASE}/`) || to.startsWith(`${BASE}/files/`)) return `${BASE}/`;
  // A backslash is a slash to browsers, and they drop control characters.
  return /[\\\u0000-\u0020]|\/\//.test(to.split(/[?#]/, 1)[0] ?? "") ? `${BASE}/` : to;
}

/** The address of the browser, and moves to other ones. */
export class Router {
  /** @param {() => void} arrived is called when the address has changed */
  constructor(arrived) {
    this.arrived = arrived;
    window.addEventListener("popstate", () => this.arrived());
    document.addEventListener("click", event => this.#clicked(event));
  }

  /** The path of the page, such as `/projects/web/vms`. */
  get path() {
    const path = location.pathname;
    const inside = path.startsWith(BASE) ? path.slice(BASE.length) : path;
    return inside.length > 1 ? inside.replace(/\/$/, "") : "/";
  }

  /** @returns {Values} */
  get query() {
    return Object.fromEntries(new URLSearchParams(location.search));
  }

  /** The address, to come back to. */
  get here() {
    return `${location.pathname}${location.search}`;
  }

  /**
   * @param {string} address an address of the console
   * @param {{replace?: boolean}} how
   */
  go(address, {replace = false} = {}) {
    if (replace) history.replaceState(null, "", safe(address));
    else history.pushState(null, "", safe(address));
    this.arrived();
  }

  /** Load the whole console again, at this address. */
  reload() {
    location.reload();
  }

  /**
   * Leave the console, for an address of the gateway that leads on.
   * @param {string} address
   */
  leave(address) {
    if (address.startsWith("/v1/")) location.assign(address);
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const target = event.target instanceof Element ? event.target.closest("a[href]") : null;
    const address = target?.getAttribute("href") ?? "";
    if (!address.startsWith(`${BASE}/`) || target?.hasAttribute("download")) return;
    event.preventDefault();
    this.go(address);
  }
}
