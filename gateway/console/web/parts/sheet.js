/** Actions at the lower edge of a phone, each as wide as the screen. */

import {html} from "../core/html.js";
import {open} from "./dialog.js";

/** @typedef {{text: string, act: () => void, danger?: boolean, possible?: boolean}} SheetAction */

/**
 * @param {string} title
 * @param {readonly SheetAction[]} actions
 */
export async function sheet(title, actions) {
  const chosen = await open(
    title,
    dialog => html`
      <div class="dialog-body sheet-actions">
        ${actions.map(
          ({text, act, danger = false, possible = true}) => html`
            <button type="button" class=${danger ? "danger-text" : ""} ?disabled=${!possible} @click=${() => dialog.close(act)}>${text}</button>
          `,
        )}
      </div>
    `,
    {sheet: true},
  );
  if (typeof chosen === "function") chosen();
}
