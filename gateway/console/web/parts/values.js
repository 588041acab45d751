/** The values of a form as the body of a call. Pure. */

/**
 * The body of a call: without fields that are empty.
 * @param {Record<string, unknown>} values
 */
export const body = values =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined));

/**
 * Lines of `key=value` as an object; null for a text that is none.
 * @param {string} text
 * @returns {Record<string, string> | null}
 */
export function labels(text) {
  /** @type {Record<string, string>} */
  const found = {};
  for (const line of text.split(/[\n,]/).map(each => each.trim())) {
    if (line === "") continue;
    const [, key, value] = /^([^=]+)(?:=(.*))?$/.exec(line) ?? [];
    if (key === undefined) return null;
    found[key.trim()] = (value ?? "").trim();
  }
  return found;
}
