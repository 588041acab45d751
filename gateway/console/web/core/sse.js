/** Server-Sent Events, parsed from pieces of text. Pure. */

/**
 * @typedef {{id: string | null, event: string, data: string, comment: string}} Frame
 *   `comment`: the text of its comment lines; it is how a feed says that it is alive, or why it ends.
 */

/**
 * A parser: it takes pieces as they come, and gives the frames that are complete. A frame without data has only an id or
 * a comment, which `EventSource` would not show.
 * @returns {(piece: string) => Frame[]}
 */
export function parser() {
  let rest = "";
  /** @type {Frame} */
  let frame = empty();
  let touched = false;
  return piece => {
    rest += piece;
    /** @type {Frame[]} */
    const found = [];
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (touched) found.push({...frame, data: frame.data.replace(/\n$/, "")});
        frame = empty();
        touched = false;
      } else {
        take(frame, line);
        touched = true;
      }
    }
    return found;
  };
}

/** @returns {Frame} */
const empty = () => ({id: null, event: "message", data: "", comment: ""});

/**
 * @param {Frame} frame
 * @param {string} line
 */
function take(frame, line) {
  const colon = line.indexOf(":");
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "") frame.comment += value;
  else if (name === "id" && !value.includes("\0")) frame.id = value;
  else if (name === "event") frame.event = value;
  else if (name === "data") frame.data += `${value}\n`;
}
