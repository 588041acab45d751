/** The same call as a command line of a shell. Pure, but for the address of the page. */

/**
 * A word for a shell.
 * @param {string} text
 */
export const quoted = text => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/**
 * @param {string} method
 * @param {string} path
 * @param {unknown} body
 * @param {number} count so many times, with `-1` to `-count` behind the name
 * @param {string} origin such as `http://127.0.0.1:8700`
 */
export function curl(method, path, body, count = 1, origin = location.origin) {
  const words = ["curl", "-X", method, quoted(origin + path), "-H", `"Authorization: Bearer $NEBULA_TOKEN"`];
  if (body !== null && body !== undefined) words.push("-H", "'Content-Type: application/json'", "-d", data(body, count));
  return count > 1 ? `for i in $(seq ${count}); do ${words.join(" ")}; done` : words.join(" ");
}

/** Stands for the number while a body becomes text. */
const NUMBER = "\u0001";

/**
 * @param {unknown} body
 * @param {number} count
 */
function data(body, count) {
  if (count === 1 || typeof body !== "object") return quoted(JSON.stringify(body));
  const {name = "", ...others} = /** @type {Record<string, unknown>} */ (body);
  return quoted(JSON.stringify({name: `${name}-${NUMBER}`, ...others})).replace(JSON.stringify(NUMBER).slice(1, -1), `'"$i"'`);
}
