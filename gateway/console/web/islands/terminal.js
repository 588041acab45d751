/**
 * A terminal (xterm). What a guest writes goes through it only: it becomes characters on a grid, never markup.
 *
 * xterm makes elements `style`, and sets attributes `style`, both of which the content security policy refuses. Here these
 * become constructed style sheets and properties of styles, which it allows.
 */

import {FitAddon} from "../vendor/@xterm/addon-fit/lib/addon-fit.mjs";
import {Terminal} from "../vendor/@xterm/xterm/lib/xterm.mjs";
import {sheet} from "./sheet.js";

/** Lines that can be scrolled back to. */
const LINES = 10_000;
/** Bytes that may wait to be shown. While more wait, what comes is left out: a guest may write faster than a page can show it. */
const WAITING = 4 * 1024 * 1024;
/** Ends an escape sequence that was cut off. */
const CANCEL = "\u0018";

/**
 * @typedef {object} Screen
 * @property {(bytes: Uint8Array) => void} write
 * @property {(text: string) => void} paste as if it had been typed
 * @property {() => void} clear
 * @property {() => void} focus
 * @property {() => void} free
 */

/**
 * Show a terminal in an element.
 * @param {HTMLElement} host
 * @param {(text: string) => void} typed called with what is typed
 * @returns {Promise<Screen>}
 */
export async function terminal(host, typed) {
  await sheet("@xterm/xterm/css/xterm.css");
  const colours = getComputedStyle(document.documentElement);
  const made = new Terminal({
    scrollback: LINES,
    fontFamily: colours.getPropertyValue("--mono"),
    fontSize: 14,
    screenReaderMode: true,
    // A guest may name any address; nothing is opened for it.
    linkHandler: {activate: () => {}},
  });
  const fit = new FitAddon();
  made.loadAddon(fit);
  strict(+1);
  made.open(host);
  const resized = new ResizeObserver(() => fit.fit());
  resized.observe(host);
  made.onData(typed);
  return {
    write: unhurried(made),
    paste: text => made.paste(text),
    clear: () => made.reset(),
    focus: () => made.focus(),
    free: () => {
      resized.disconnect();
      made.dispose();
      strict(-1);
    },
  };
}

/**
 * Write as fast as the terminal can show it, and leave out the rest. Where something is left out, a line says so.
 * @param {Terminal} terminal
 * @returns {(bytes: Uint8Array) => void}
 */
function unhurried(terminal) {
  let waiting = 0;
  let left = 0;
  let full = false;
  const say = () => {
    if (left > 0) terminal.write(`${CANCEL}\u001b[0m\r\n[${left} bytes are left out here: they came too fast]\r\n`);
    left = 0;
  };
  return bytes => {
    if (full) {
      left += bytes.length;
      return;
    }
    say();
    waiting += bytes.length;
    full = waiting > WAITING;
    terminal.write(bytes, () => {
      waiting -= bytes.length;
      full &&= waiting > WAITING / 4;
      if (waiting === 0) say();
    });
  };
}

/** How many terminals are shown. */
let shown = 0;

/**
 * While a terminal is shown, the document makes elements as the content security policy wants them.
 * @param {number} more
 */
function strict(more) {
  shown += more;
  if (shown > 0) document.createElement = /** @type {Document["createElement"]} */ (create);
  else Reflect.deleteProperty(document, "createElement");
}

/** @param {string} name */
function create(name) {
  const element = Document.prototype.createElement.call(document, name === "style" ? "template" : name);
  if (name === "style") styled(element);
  if (name === "span") {
    element.setAttribute = (attribute, value) => {
      if (attribute === "style") element.style.cssText = value;
      else Element.prototype.setAttribute.call(element, attribute, value);
    };
  }
  return element;
}

/**
 * Make an element whose text is a style sheet.
 * @param {HTMLElement} element
 */
function styled(element) {
  const rules = new CSSStyleSheet();
  document.adoptedStyleSheets.push(rules);
  Object.defineProperty(element, "textContent", {set: text => rules.replaceSync(text)});
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter(each => each !== rules);
    Element.prototype.remove.call(element);
  };
}
