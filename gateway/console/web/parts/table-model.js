/** The arithmetic of a table: which rows are drawn, in which order, and which are selected. Pure. */

/** Rows that are drawn beyond those that are seen, above and below. */
const MARGIN = 5;
/** The most rows that are seen at the same time. */
const MOST = 60;

/**
 * Which rows are drawn: `from` up to, and without, `to`.
 * @param {number} top how far the list is scrolled, in pixels
 * @param {number} height of what is seen
 * @param {number} row the height of a row
 * @param {number} count of all rows
 */
export function drawn(top, height, row, count) {
  const first = Math.max(0, Math.floor(top / row));
  const seen = Math.min(MOST, Math.ceil(height / row) + 1);
  const from = Math.max(0, Math.min(first - MARGIN, count - 1));
  return {from: Math.min(from, count), to: Math.min(count, first + seen + MARGIN)};
}

/**
 * The classes of a cell.
 * @param {{align?: string, card?: boolean, only?: string}} column
 */
export const look = ({align = "", card = false, only}) => `${align} ${card ? "" : "no-card"} ${only ? `only-${only}` : ""}`;

/**
 * Where the list has to be scrolled so that a row is seen.
 * @param {number} at the row
 * @param {number} top
 * @param {number} height
 * @param {number} row
 */
export function scrolled(at, top, height, row) {
  if (at * row < top) return at * row;
  return (at + 1) * row > top + height ? (at + 1) * row - height : top;
}

/**
 * Compares two values of a column: numbers as numbers, text as people sort it (`web-2` before `web-10`), nothing last.
 * @param {unknown} one
 * @param {unknown} other
 */
export const compared = (one, other) => ordered(keyOf(one), keyOf(other));

/** @typedef {number | string | null} Key what a value is sorted by; null: nothing */

/**
 * Texts get a key that is compared character by character: to compare 10,000 names by a collator takes longer than a frame.
 * @param {unknown} value
 * @returns {Key}
 */
function keyOf(value) {
  if (value === null || value === undefined || value === "") return null;
  if (typeof value === "number") return value;
  const text = String(value);
  const plain = /^[\x20-\x7e]*$/.test(text) ? text : text.normalize("NFD").replace(/\p{M}/gu, "");
  return plain.toLowerCase().replace(/\d+/g, digits => digits.replace(/^0+(?=\d)/, "").padStart(16, "0"));
}

/**
 * @param {Key} one
 * @param {Key} other
 */
function ordered(one, other) {
  if (one === other) return 0;
  if (one === null) return 1;
  if (other === null) return -1;
  if (typeof one === "number") return typeof other === "number" ? one - other : -1;
  return typeof other === "number" || one > other ? 1 : -1;
}

/**
 * The rows in another order; rows that are equal keep theirs.
 * @template R
 * @param {readonly R[]} rows
 * @param {((row: R) => unknown) | null} by
 * @param {boolean} descending
 * @returns {R[]}
 */
export function sorted(rows, by, descending = false) {
  if (by === null) return descending ? rows.toReversed() : [...rows];
  const keyed = rows.map(row => ({row, key: keyOf(by(row))}));
  keyed.sort((one, other) => {
    const order = ordered(one.key, other.key);
    return descending && one.key !== null && other.key !== null ? -order : order;
  });
  return keyed.map(({row}) => row);
}

/**
 * The selection after a click: of one row, or (with Shift) of all rows from the last one to this one.
 * @param {ReadonlySet<string>} selected
 * @param {readonly string[]} ids of all rows, in their order
 * @param {string} id
 * @param {string | null} anchor the row that was clicked before, for Shift
 * @returns {Set<string>}
 */
export function selection(selected, ids, id, anchor = null) {
  const found = new Set(selected);
  const from = anchor === null ? -1 : ids.indexOf(anchor);
  const to = ids.indexOf(id);
  if (from < 0 || to < 0) {
    if (!found.delete(id)) found.add(id);
    return found;
  }
  const on = found.has(/** @type {string} */ (anchor));
  for (const each of ids.slice(Math.min(from, to), Math.max(from, to) + 1)) {
    if (on) found.add(each);
    else found.delete(each);
  }
  return found;
}
