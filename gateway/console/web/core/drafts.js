/**
 * What somebody has begun to type, for a reload of this tab. It stays in this tab only, until it was accepted or its user
 * signs out. Nothing of the platform is kept.
 */

const PREFIX = "nebula.draft.";

/**
 * @param {string} name of the form, and whose it is
 * @returns {Record<string, string>} the values of its fields; none if nothing was typed
 */
export function draftOf(name) {
  try {
    const found = JSON.parse(sessionStorage.getItem(PREFIX + name) ?? "{}");
    return Object.fromEntries(Object.entries(found).filter(([, value]) => typeof value === "string"));
  } catch {
    return {};
  }
}

/**
 * @param {string} name
 * @param {Record<string, string> | null} values null: forget them
 */
export function keepDraft(name, values) {
  try {
    if (values === null) sessionStorage.removeItem(PREFIX + name);
    else sessionStorage.setItem(PREFIX + name, JSON.stringify(values));
  } catch {
    // a browser that keeps nothing: then a reload forgets
  }
}

/** Forget all of them: their user has signed out. */
export function forgetDrafts() {
  for (const key of Object.keys(sessionStorage)) if (key.startsWith(PREFIX)) sessionStorage.removeItem(key);
}
