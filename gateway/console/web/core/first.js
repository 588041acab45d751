/** The first items of a list that may be too long to be read whole. */

/** The largest page of a list. */
const PAGE = 500;

/**
 * @template T
 * @param {Context} context
 * @param {string} path
 * @param {import("./router.js").Query} query
 * @param {number} most
 * @returns {Promise<{items: T[], more: boolean}>}
 */
export async function first({api, signal}, path, query, most) {
  /** @type {T[]} */
  const found = [];
  let more = false;
  await api.pages(
    path,
    query,
    (/** @type {T[]} */ items) => {
      found.push(...items);
      more = found.length > most;
      return !more;
    },
    {signal, limit: Math.min(PAGE, most + 1)},
  );
  return {items: found.slice(0, most), more};
}
