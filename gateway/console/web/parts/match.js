/** How rows are found: by words in a text, and by the values that there are. Pure. */

/**
 * Whether a text has all words of a search, in any order and case. Pure.
 * @param {string} text
 * @param {string | undefined} search
 */
export function matches(text, search) {
  if (!search) return true;
  const lower = text.toLowerCase();
  return search.toLowerCase().split(/\s+/).every(word => lower.includes(word));
}

/**
 * The values that a list has, sorted, each once.
 * @template R
 * @param {readonly R[]} rows
 * @param {(row: R) => string | null} value
 */
export const values = (rows, value) => [...new Set(rows.map(value).filter(each => each !== null))].sort();
