/** Dialogues: one at a time, above the page, closed by Escape. The browser keeps the focus inside. */

import {html, icon, nothing, render} from "../core/html.js";

let dialogs = 0;
/** What closes each dialogue that is open. @type {Set<() => void>} */
const opened = new Set();

/**
 * @typedef {object} Dialog
 * @property {() => void} changed render it again
 * @property {(result?: unknown) => void} close
 */

/**
 * Open a dialogue. `view` makes its content, with buttons of its own; it is called again after `changed`.
 * @template R
 * @param {string} title
 * @param {(dialog: Dialog) => unknown} view
 * @param {{wide?: boolean, sheet?: boolean, mayClose?: () => boolean}} how `sheet`: at the lower edge; `mayClose`: whether Escape may close it now
 * @returns {Promise<R | undefined>} what it was closed with
 */
export function open(title, view, {wide = false, sheet = false, mayClose = () => true} = {}) {
  const before = document.activeElement;
  const element = document.createElement("dialog");
  element.className = `dialog ${wide ? "wide" : ""} ${sheet ? "sheet" : ""}`;
  dialogs += 1;
  const label = `dialog-${dialogs}`;
  element.setAttribute("aria-labelledby", label);
  document.body.append(element);
  return new Promise(resolve => {
    /** @type {Dialog} */
    const dialog = {
      changed: () => {
        if (element.isConnected) draw();
      },
      close: result => {
        opened.delete(dialog.close);
        element.close();
        element.remove();
        if (before instanceof HTMLElement && before.isConnected) before.focus();
        resolve(/** @type {R | undefined} */ (result));
      },
    };
    const draw = () =>
      render(
        html`
          <header class="dialog-head">
            <h2 id=${label}>${title}</h2>
            <button type="button" class="plain" aria-label="Close" @click=${() => mayClose() && dialog.close()}>${icon("close")}</button>
          </header>
          ${view(dialog) ?? nothing}
        `,
        element,
      );
    element.addEventListener("cancel", event => {
      event.preventDefault();
      if (mayClose()) dialog.close();
    });
    opened.add(dialog.close);
    draw();
    element.showModal();
    const first = element.querySelector("[autofocus]") ?? element.querySelector(".dialog-body input, .dialog-body select, .dialog-body textarea");
    if (first instanceof HTMLElement) first.focus();
  });
}

/** Close all of them, also one that still waits or shows a secret: its user has signed out. */
export function closeAll() {
  for (const close of [...opened]) close();
}
