/** The display of a guest (noVNC). The clipboards of the guest and of this browser stay apart. */

import RFB from "../vendor/@novnc/novnc/core/rfb.js";
import {initLogging} from "../vendor/@novnc/novnc/core/util/logging.js";

// What it would log is said by the page, in words.
initLogging("none");

/**
 * @typedef {object} Display
 * @property {() => void} reset send Ctrl-Alt-Del
 * @property {() => void} focus
 * @property {() => void} free also ends the connection
 */

/**
 * Show a display in an element, as large as there is room.
 * @param {HTMLElement} host
 * @param {WebSocket} socket
 * @param {{shown: () => void, failed: (words: string) => void}} told
 * @returns {Display}
 */
export function display(host, socket, {shown, failed}) {
  const made = new RFB(host, socket, {shared: true});
  made.scaleViewport = true;
  made.addEventListener("connect", shown);
  made.addEventListener("credentialsrequired", () => failed("This display asks for a password, which displays of this platform do not have."));
  made.addEventListener("securityfailure", () => failed("This display speaks another kind of VNC."));
  return {
    reset: () => made.sendCtrlAltDel(),
    focus: () => made.focus(),
    free: () => made.disconnect(),
  };
}
