/** Style sheets of islands, which are loaded with them. */

/** @type {Map<string, Promise<void>>} */
const loaded = new Map();

/**
 * Load a style sheet of a package, once.
 * @param {string} path such as `uplot/dist/uPlot.min.css`
 * @returns {Promise<void>} resolves when it applies
 */
export function sheet(path) {
  const known = loaded.get(path);
  if (known) return known;
  const made = new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL(`../vendor/${path}`, import.meta.url).href;
    link.onload = () => resolve();
    link.onerror = () => {
      loaded.delete(path);
      reject(new Error(`${path} cannot be loaded; the console may have been updated: reload the page`));
    };
    document.head.append(link);
  });
  loaded.set(path, made);
  return made;
}
