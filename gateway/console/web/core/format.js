/** How numbers, sizes and times are shown. Pure functions; times are shown in the zone of the browser. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** @param {number} value */
const short = value => (value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1));

/**
 * @param {number | null | undefined} count of bytes
 * @returns {string} such as `1.5 GiB`
 */
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let value = count;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${short(value)} ${UNITS[unit]}`;
}

/** @param {number | null | undefined} count of MiB */
export const mib = count => bytes(count === null || count === undefined ? count : count * 1024 * 1024);

/** @param {number | null | undefined} count of GiB */
export const gib = count => mib(count === null || count === undefined ? count : count * 1024);

/**
 * @param {number} count
 * @param {string} one
 * @param {string} many
 */
export const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/**
 * @param {number} milliseconds
 * @returns {string} such as `340 ms`, `12 s`, `3 min`, `5 h`, `2 d`
 */
export function duration(milliseconds) {
  const seconds = milliseconds / 1000;
  if (Math.abs(milliseconds) < 1000) return `${Math.round(milliseconds)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/**
 * @param {string | null | undefined} time RFC 3339
 * @param {number} now milliseconds since 1970
 * @returns {string} such as `3 min ago`
 */
export function ago(time, now = Date.now()) {
  if (!time) return "–";
  const passed = now - Date.parse(time);
  if (Number.isNaN(passed)) return time;
  if (passed < -1500) return `in ${duration(-passed)}`;
  return passed < 1500 ? "now" : `${duration(passed)} ago`;
}

const two = (/** @type {number} */ value) => String(value).padStart(2, "0");

/**
 * @param {string | null | undefined} time RFC 3339
 * @returns {string} such as `2026-11-28 14:03:07`
 */
export function moment(time) {
  if (!time) return "–";
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return time;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(time)}`;
}

/**
 * @param {string | null | undefined} time RFC 3339
 * @returns {string} such as `14:03:07`
 */
export function clock(time) {
  if (!time) return "–";
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return time;
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/**
 * The words of a name such as `VmGuestReady` or `guest_ready`.
 * @param {string} name
 */
export function words(name) {
  const parted = name.replace(/([a-z0-9])([A-Z])/g, "$1 $2").replaceAll(/[_-]/g, " ").toLowerCase();
  return parted.replace(/\bvm\b/g, "VM").replace(/^./, first => first.toUpperCase());
}
