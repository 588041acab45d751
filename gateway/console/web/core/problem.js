/** What the API refuses, in its own words (RFC 9457). */

/** @typedef {{field: string, detail: string}} FieldError */

export class Problem extends Error {
  /**
   * @param {number} status 0: no answer came
   * @param {string} code
   * @param {string} detail
   * @param {FieldError[]} errors
   * @param {string | null} request the id by which the logs of the platform name the call
   * @param {number | null} retryAfter seconds
   * @param {Record<string, unknown>} body all that the answer says
   */
  constructor(status, code, detail, errors = [], request = null, retryAfter = null, body = {}) {
    super(detail);
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.errors = errors;
    this.request = request;
    this.retryAfter = retryAfter;
    this.body = body;
  }
}

/**
 * The problem of an answer that is not 2xx.
 * @param {Response} response
 * @returns {Promise<Problem>}
 */
export async function problemOf(response) {
  const after = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  return parsed(response.status, await response.text(), Number.isNaN(after) ? null : after);
}

/**
 * @param {number} status
 * @param {string} text the body of the answer
 * @param {number | null} retryAfter
 */
export function parsed(status, text, retryAfter = null) {
  /** @type {Record<string, unknown>} */
  let found = {};
  try {
    const value = JSON.parse(text);
    if (value !== null && typeof value === "object") found = value;
  } catch {
    // a proxy in front of the gateway answers in words of its own
  }
  const {code, detail, errors, request_id: request} = found;
  return new Problem(
    status,
    typeof code === "string" ? code : `status_${status}`,
    typeof detail === "string" ? detail : `the answer was ${status}`,
    Array.isArray(errors) ? errors.filter(each => each && typeof each.field === "string") : [],
    typeof request === "string" ? request : null,
    retryAfter,
    found,
  );
}

/** @returns {Problem} what a call without an answer is */
export const unreachable = () => new Problem(0, "unreachable", "the gateway does not answer; is the network there?");

/**
 * @param {unknown} error
 * @returns {Problem} the error itself, if it is one; else what a bug of the page is
 */
export function asProblem(error) {
  if (error instanceof Problem) return error;
  console.error(error);
  return new Problem(0, "page_error", error instanceof Error ? error.message : String(error));
}

/**
 * What is wrong with a field, and with the fields inside it (`labels.team` belongs to `labels`).
 * @param {Problem | null} problem
 * @param {string} name
 * @returns {string[]}
 */
export function of(problem, name) {
  const inside = (problem?.errors ?? []).filter(({field}) => field === name || field.startsWith(`${name}.`));
  return inside.map(({field, detail}) => (field === name ? detail : `${field.slice(name.length + 1)}: ${detail}`));
}

/**
 * The errors of fields that a form does not have.
 * @param {Problem | null} problem
 * @param {string[]} names
 * @returns {FieldError[]}
 */
export function elsewhere(problem, names) {
  return (problem?.errors ?? []).filter(({field}) => !names.some(name => field === name || field.startsWith(`${name}.`)));
}

/**
 * An answer; null if it is refused with one of these statuses: there is none to have.
 * @template T
 * @param {Promise<T>} answer
 * @param {number[]} statuses
 * @returns {Promise<T | null>}
 */
export async function unless(answer, statuses = [403, 404, 410]) {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof Problem && statuses.includes(error.status)) return null;
    throw error;
  }
}
