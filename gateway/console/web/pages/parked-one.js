/** One parked message: whole, why it is parked, and what can be done with it. */

import {html, nothing} from "../core/html.js";
import {bytes, moment} from "../core/format.js";
import {link} from "../core/links.js";
import {ask} from "../parts/ask.js";
import {badge, facts} from "../parts/badge.js";
import {command, quoted} from "../parts/command.js";
import {confirm} from "../parts/confirm.js";
import {tree} from "../parts/tree.js";

/** @typedef {{record: ParkedView}} One */

/** @type {Page<One>} */
export const page = {
  title: ({params}) => `Parked: ${params["source"]} ${params["key"]}`,

  async load({api, params, signal}) {
    return {record: /** @type {ParkedView} */ (await api.get(pathOf(params), {}, {signal}))};
  },

  view(context, {record}) {
    const {me, at} = context;
    const may = at === null && record.status === "open" && me.may("parked.manage");
    const words = `nebula parked`;
    const names = `${quoted(record.source)} ${quoted(record.key)}`;
    const path = pathOf({source: record.source, key: record.key});
    const retry = () =>
      void confirm({
        title: "Try again",
        words: "The message is put back on its subject, and is processed again.",
        button: "Try again",
        more: command({method: "POST", path: `${path}/retry`, body: {}, cli: `${words} retry ${names}`}),
        act: async () => {
          await context.api.ask(`${path}/retry`, {});
          context.refresh();
        },
      });
    const drop = () =>
      void ask(context, {
        title: "Drop the message",
        button: "Drop",
        words: html`<p>It needs no more work. A message of the log stays in the log.</p>`,
        fields: () => [{name: "reason", label: "Why", required: true, help: "It is stored with the record."}],
        call: form => ({method: "POST", path: `${path}/drop`, body: {reason: form.text("reason").trim()}, cli: `${words} drop ${names} --reason ${quoted(form.text("reason").trim() || "REASON")}`}),
      });
    return html`
      <nav class="crumbs" aria-label="Path">${link("/parked", {}, "Parked messages")}</nav>
      <header class="page-head">
        <h1>${record.source} ${record.key}</h1> ${badge(record.status, record.status === "open" ? "warn" : "still")}
        <span class="grow"></span>
        ${may ? html`<button @click=${retry}>Try again</button> <button class="danger-text" @click=${drop}>Drop</button>` : nothing}
      </header>
      <div class="note bad"><p>${record.error}</p></div>
      <div class="cards">
        <section class="card" aria-labelledby="what"><h2 id="what">The record</h2>
          ${facts([
            ["Subject", html`<code class="break">${record.subject}</code>`],
            ["Position", record.source === "log" ? link("/log/:position", {position: String(record.position)}, record.position) : record.position],
            ["Parked", moment(record.time)],
            ["Size", bytes(record.size)],
            record.closed_at ? ["Closed", `${moment(record.closed_at)}${record.actor ? ` by ${record.actor}` : ""}`] : null,
            record.reason ? ["Because", record.reason] : null,
          ])}
        </section>
        <section class="card" aria-labelledby="headers"><h2 id="headers">Headers</h2>${tree(record.headers)}</section>
        <section class="card wide" aria-labelledby="body"><h2 id="body">Content</h2>
          ${record.message ? tree(record.message) : html`<pre class="content" tabindex="0">${plain(record.data_base64)}</pre>`}
        </section>
      </div>
    `;
  },
};

/** @param {Record<string, string>} params */
const pathOf = ({source = "", key = ""}) => `/v1/parked/${encodeURIComponent(source)}/${encodeURIComponent(key)}`;

/** @param {string | null | undefined} text in Base64 */
function plain(text) {
  if (!text) return "It has none.";
  return new TextDecoder().decode(Uint8Array.from(atob(text), each => each.charCodeAt(0)));
}
