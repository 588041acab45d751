/** The call that creates a VM, of the values of the form, and the same as a command of `nebula`. Pure. */

import {quoted} from "../../parts/shell.js";
import {body, labels} from "../../parts/values.js";

/** @typedef {import("../../parts/form.js").Form} Form */

/** The values of a form that nobody has touched. */
export const DEFAULTS = {vcpus: "1", memory_mib: "512", disk_gib: "4", restart_policy: "no", watchdog: "disabled", protected: "false", count: "1"};
/** The most VMs that are created together. */
export const MOST = 100;

const lines = (/** @type {string} */ text) => text.split("\n").map(line => line.trim()).filter(Boolean);
const list = (/** @type {string} */ text) => text.split(/[\s,]+/).filter(Boolean);
const some = (/** @type {string[]} */ found) => (found.length > 0 ? found : null);

/** @param {Form} form @returns {number} how many VMs: 1 to MOST */
export const countOf = form => Math.max(1, Math.min(MOST, Math.floor(form.number("count") ?? 1) || 1));

/**
 * The body of the call. With a count above 1, its name is that of all of them without their numbers.
 * @param {Form} form
 * @returns {Record<string, unknown>}
 */
export function bodyOf(form) {
  const flavor = form.text("flavor");
  const found = labels(form.text("labels"));
  return body({
    name: form.text("name").trim(),
    image: form.text("image"),
    ...(flavor ? {flavor} : {vcpus: form.number("vcpus"), memory_mib: form.number("memory_mib"), disk_gib: form.number("disk_gib")}),
    region: form.text("region").trim(),
    tags: some(list(form.text("tags"))),
    labels: found && Object.keys(found).length > 0 ? found : null,
    protected: form.text("protected") === "true" ? true : null,
    restart_policy: form.text("restart_policy") === DEFAULTS.restart_policy ? null : form.text("restart_policy"),
    watchdog: form.text("watchdog") === DEFAULTS.watchdog ? null : form.text("watchdog"),
    description: form.text("description").trim(),
    ssh_keys: some(lines(form.text("ssh_keys"))),
    user_data: form.text("user_data"),
  });
}

/**
 * The body of one of several.
 * @param {Record<string, unknown>} values
 * @param {number} number from 1
 * @returns {Record<string, unknown> & {name: string}}
 */
export const numbered = (values, number) => ({...values, name: `${values["name"] ?? ""}-${number}`});

/** The options of `nebula vm create`, by the fields of the body that they are for. */
const OPTIONS = /** @type {const} */ ([
  ["image", "--image"],
  ["flavor", "--flavor"],
  ["vcpus", "--vcpus"],
  ["memory_mib", "--memory"],
  ["disk_gib", "--disk"],
  ["region", "--region"],
  ["tags", "--tag"],
  ["labels", "--label"],
  ["restart_policy", "--restart"],
  ["watchdog", "--watchdog"],
  ["description", "--description"],
  ["ssh_keys", "--ssh-key"],
]);

/**
 * The same as a command line of a POSIX shell.
 * @param {string} project
 * @param {Record<string, unknown>} values the body
 * @param {number} count
 */
export function cliOf(project, values, count = 1) {
  const name = quoted(String(values["name"] ?? "NAME"));
  const words = ["nebula vm create", count > 1 ? `${name}-"$i"` : name, "--project", quoted(project)];
  for (const [field, option] of OPTIONS) {
    for (const value of texts(values[field])) words.push(option, quoted(value));
  }
  if (values["protected"] === true) words.push("--protected");
  const data = values["user_data"];
  const line = data === undefined ? words.join(" ") : `printf %s ${quoted(String(data))} | ${[...words, "--user-data", "/dev/stdin"].join(" ")}`;
  return count > 1 ? `for i in $(seq ${count}); do ${line}; done` : line;
}

/**
 * A value of the body as the values of its option.
 * @param {unknown} value
 * @returns {string[]}
 */
function texts(value) {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value.map(String);
  if (typeof value === "object") return Object.entries(value).map(([key, each]) => `${key}=${each}`);
  return [String(value)];
}
