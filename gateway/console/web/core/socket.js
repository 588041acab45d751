/** WebSockets to guests: the serial console and the display of a VM. */

import {parsed, unreachable} from "./problem.js";
import {queryOf} from "./router.js";

/** The subprotocols: plain bytes, and refusals as text, since a script cannot read the answer to a handshake. */
const PROTOCOLS = ["binary", "problem"];
/** The code of the end after a refusal is its status and this. */
const REFUSED = 4000;
/** The gateway is being restarted. */
const RESTARTS = 1012;
/** There was no answer, or the network was lost. */
const LOST = 1006;

/**
 * How a connection has ended.
 * @typedef {object} End
 * @property {import("./problem.js").Problem | null} problem it was refused, or there was no answer
 * @property {string} words why it has ended
 * @property {boolean} again whether it is worth connecting again without a question
 */

/**
 * Open a WebSocket. The cookie of the session goes with it, and the gateway checks that this page is its own.
 * @param {string} path
 * @param {import("./router.js").Query} query
 * @param {{opened?: () => void, ended: (end: End) => void}} told `opened`: the connection is made, and was not refused
 * @returns {WebSocket} its messages are bytes
 */
export function connect(path, query, {opened = () => {}, ended}) {
  const url = new URL(path + queryOf(query), document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url, PROTOCOLS);
  socket.binaryType = "arraybuffer";
  let open = false;
  let refused = "";
  socket.addEventListener("open", () => {
    open = true;
    opened();
  });
  socket.addEventListener("message", event => {
    if (typeof event.data !== "string") return;
    event.stopImmediatePropagation();
    refused = event.data;
  });
  socket.addEventListener("close", ({code, reason}) => ended(endOf(code, reason, open, refused)));
  return socket;
}

/**
 * What the end of a connection means. Pure.
 * @param {number} code
 * @param {string} reason
 * @param {boolean} open whether it was open before
 * @param {string} refused the text that came, if one did
 * @returns {End}
 */
export function endOf(code, reason, open, refused) {
  if (code > REFUSED) return {problem: parsed(code - REFUSED, refused), words: "", again: false};
  if (!open) return {problem: unreachable(), words: "", again: false};
  if (code === RESTARTS) return {problem: null, words: "This gateway is being restarted.", again: true};
  if (code === LOST) return {problem: null, words: "The connection was lost.", again: true};
  return {problem: null, words: reason ? `The connection has ended: ${reason}.` : "The connection has ended.", again: false};
}
