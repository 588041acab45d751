/** The worker that all tabs of one user share: a browser allows six connections to a host, and a feed keeps one. */

import {Hub} from "./hub.js";

const hub = new Hub();
globalThis.addEventListener("connect", event => {
  const port = /** @type {MessageEvent} */ (event).ports[0];
  if (port) hub.add(port);
});
