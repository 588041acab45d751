/** A join token: the page makes it, the platform gets only its digest, and its command is shown once. */

import {html} from "../core/html.js";
import {ask, once} from "../parts/ask.js";
import {Problem} from "../core/problem.js";

/** 256 bits. */
const BYTES = 32;

const hex = (/** @type {ArrayBuffer} */ bytes) => [...new Uint8Array(bytes)].map(byte => byte.toString(16).padStart(2, "0")).join("");
const sha256 = async (/** @type {Uint8Array<ArrayBuffer>} */ bytes) => hex(await crypto.subtle.digest("SHA-256", bytes));

/**
 * Let a host join as a node.
 * @param {Context} context
 * @param {string} [node]
 */
export async function join(context, node = "") {
  const random = crypto.getRandomValues(new Uint8Array(BYTES));
  const secret = btoa(String.fromCharCode(...random)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const tokenOf = (/** @type {string} */ name) => `nbj_${name}_${secret}`;
  let name = node;
  let digest = "";
  /** @type {Promise<void> | null} */
  let making = null;
  const answer = await ask(context, {
    title: "Add a host",
    button: "Make the token",
    words: html`<p>One host may join as this node, within the time and once. If a host runs the node now, it goes on until the other one has joined.</p>`,
    values: {node, minutes: "60"},
    fields: () => [
      {name: "node", label: "Name of the node", required: true, placeholder: "n2"},
      {name: "minutes", label: "Minutes for which it is valid", type: "number", min: 1, max: 60, required: true},
    ],
    call: form => {
      const wanted = form.text("node").trim();
      if (wanted !== name || (digest === "" && making === null && wanted !== "")) {
        name = wanted;
        digest = "";
        making = sha256(new TextEncoder().encode(tokenOf(wanted))).then(made => {
          if (name === wanted) digest = made;
          making = null;
          form.changed();
        });
      }
      if (wanted === "" || digest === "") return null;
      return {method: "POST", path: `/v1/enrollments/${encodeURIComponent(wanted)}/issue`, body: {digest, minutes: form.number("minutes")}, cli: `nebula node token ${wanted}`};
    },
  });
  if (answer === undefined) return;
  const fingerprint = await authority(context);
  const words = ["nebula", "node", "join", document.baseURI.split("/").slice(0, 3).join("/"), tokenOf(name), ...(fingerprint ? ["--ca-fingerprint", fingerprint] : [])];
  await once(`Add the host of ${name}`, html`<p>Run this on the host, as the user that runs the node; then start <code>nebula node</code> there.</p>`, words.join(" "), "Command");
}

/**
 * The fingerprint of the platform's authority; null if it has none of its own.
 * @param {Context} context
 */
async function authority({api}) {
  try {
    /** @type {string} */
    const pem = await api.get("/v1/ca", {}, {now: true});
    const [, body = ""] = /-----BEGIN CERTIFICATE-----([^-]+)-----END/.exec(pem) ?? [];
    return body === "" ? null : `sha256:${await sha256(Uint8Array.from(atob(body.replaceAll(/\s/g, "")), each => each.charCodeAt(0)))}`;
  } catch (error) {
    if (error instanceof Problem && error.code === "no_authority") return null;
    throw error;
  }
}
