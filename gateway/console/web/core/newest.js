/** The newest events, the newest first. */

import {Problem} from "./problem.js";

/** How far back a gateway that cannot sort is searched. */
const BACK = 2000;

/**
 * @param {Context} context
 * @param {import("./router.js").Query} query such as `{project, vm}`
 * @param {number} limit
 * @returns {Promise<CloudEvent[]>}
 */
export async function newest({api, at, signal}, query, limit) {
  const until = at === null ? {} : {to: at};
  try {
    /** @type {ListOf<CloudEvent>} */
    const found = await api.get("/v1/events", {...query, ...until, order: "desc", limit}, {signal, now: true});
    return found.items;
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== "invalid_parameter") throw error;
  }
  const end = at !== null && /^[0-9]+$/.test(at) ? Number(at) : api.position;
  const from = query["vm"] ? 1 : Math.max(1, end - BACK);
  /** @type {CloudEvent[]} */
  let all = [];
  await api.pages(
    "/v1/events",
    {...query, ...until, from},
    (/** @type {CloudEvent[]} */ items) => {
      all = [...all, ...items].slice(-limit);
    },
    {signal, now: true},
  );
  return all.reverse();
}
