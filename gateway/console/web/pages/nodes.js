/** The nodes: hosts that run VMs, how full they are, and which host may speak for which node. */

import {html, nothing} from "../core/html.js";
import {ago, counted, gib, mib, moment} from "../core/format.js";
import {linkTo} from "../core/links.js";
import {Rows} from "../core/rows.js";
import {badge, empty} from "../parts/badge.js";
import {confirm} from "../parts/confirm.js";
import {filters, matches, values} from "../parts/filters.js";
import "../parts/table.js";
import {join} from "./node-join.js";

/** @typedef {{rows: Rows<NodeView, NodeView>, enrollments: Rows<EnrollmentView, EnrollmentView>}} Nodes */

/** @param {number} used @param {number} total */
const share = (used, total) => (total > 0 ? used / total : 0);

/** @type {import("../parts/table.js").Column<NodeView>[]} */
const COLUMNS = [
  {name: "id", title: "Node", card: true, by: row => row.id, view: row => linkTo("node", null, row.id)},
  {name: "status", title: "State", card: true, by: row => row.status, view: row => badge(row.status)},
  {name: "vms", title: "VMs", align: "end", by: row => row.vms, view: row => row.vms},
  {name: "vcpus", title: "CPUs promised", card: true, align: "end", by: row => share(row.reserved.vcpus, row.capacity.vcpus), view: row => `${row.reserved.vcpus} of ${row.capacity.vcpus}`},
  {name: "memory", title: "Memory promised", align: "end", by: row => share(row.reserved.memory_mib, row.capacity.memory_mib), view: row => `${mib(row.reserved.memory_mib)} of ${mib(row.capacity.memory_mib)}`},
  {name: "disk", title: "Disk promised", align: "end", by: row => share(row.reserved.disk_gib, row.capacity.disk_gib), view: row => `${gib(row.reserved.disk_gib)} of ${gib(row.capacity.disk_gib)}`},
  {name: "region", title: "Region", by: row => row.region, view: row => row.region},
  {name: "seen", title: "Last seen", by: row => row.last_seen, view: row => html`<span title=${row.last_seen ?? ""}>${ago(row.last_seen)}</span>`},
  {name: "clock", title: "Clock", view: row => row.clock_warning ?? "right"},
];

/** @type {Page<Nodes>} */
export const page = {
  async load({api, changed, signal}, before) {
    if (before && before.rows.signal === signal) {
      await Promise.all([before.rows.load(), before.enrollments.load()]);
      return before;
    }
    const keep = (/** @type {any} */ item) => item;
    const rows = new Rows({api, path: "/v1/nodes", keep, changed, signal});
    const enrollments = new Rows({api, path: "/v1/enrollments", keep, changed, signal});
    await Promise.all([rows.load(), enrollments.load()]);
    return {rows, enrollments};
  },

  live({kind, id, type, data: fields}, _context, {rows, enrollments}) {
    if (kind === "node") rows.note(id);
    if (kind === "enrollment") enrollments.note(id);
    if (kind === "vm" && type !== "VmGuestReady" && typeof fields["node"] === "string") rows.note(fields["node"]);
  },

  view(context, {rows, enrollments}) {
    const {at, query, me, go} = context;
    const shown = rows.list.filter(row => matches(`${row.id} ${row.region} ${row.status} ${row.architecture}`, query["q"]) && (!query["status"] || row.status === query["status"]) && (!query["region"] || row.region === query["region"]));
    const may = at === null && me.may("node.manage");
    return html`
      <header class="page-head">
        <h1>Nodes</h1>
        <span class="count" role="status">${counted(rows.list.length, "node")}${rows.complete ? "" : ", reading…"}</span>
        <span class="grow"></span>
        ${may ? html`<button class="primary" @click=${() => void join(context)}>Add a host</button>` : nothing}
      </header>
      ${filters(context, "Search id, region, state…", [
        {name: "status", label: "State", options: values(rows.list, ({status}) => status)},
        {name: "region", label: "Region", options: values(rows.list, ({region}) => region)},
      ])}
      <nb-table .model=${{
        label: "Nodes",
        columns: COLUMNS,
        rows: shown,
        id: (/** @type {NodeView} */ row) => row.id,
        name: (/** @type {NodeView} */ row) => row.id,
        onopen: (/** @type {NodeView} */ row) => go("/nodes/:node", {node: row.id}),
        empty: rows.list.length === 0 ? empty("No nodes", "A host joins with a token, and registers itself.", may ? html`<button class="primary" @click=${() => void join(context)}>Add a host</button>` : nothing) : empty("None of them matches", "Change the search or the filters."),
      }}></nb-table>
      <section class="card wide" aria-labelledby="enrollments"><h2 id="enrollments">Which hosts may join</h2>
        ${enrollments.list.length === 0 ? html`<p class="small">No host has a key or a token.</p>` : nothing}
        <ul class="plain-list">
          ${enrollments.list.map(
            each => html`
              <li>${badge(each.status)} ${rows.get(each.id) ? linkTo("node", null, each.id) : each.id}
                <span class="small">${each.joined_at ? `joined ${moment(each.joined_at)}` : "no host has joined"}${each.token_expires_at ? `, a token is valid until ${moment(each.token_expires_at)}` : ""}${each.revoked_at ? `, revoked ${moment(each.revoked_at)}` : ""}</span>
                ${may && (each.status !== "revoked" || each.token_expires_at) ? html`<button class="danger-text" @click=${() => void revoke(context, each.id)}>Revoke ${each.id}</button>` : nothing}</li>
            `,
          )}
        </ul>
      </section>
    `;
  },
};

/** @param {Context} context @param {string} node */
const revoke = ({api, refresh}, node) =>
  confirm({
    title: `Revoke: ${node}`,
    words: "The key of the host and its token end. Its daemon is cut off within seconds; its VMs go on running, and nobody controls them.",
    button: "Revoke",
    danger: true,
    name: node,
    act: async () => {
      await api.send("POST", `/v1/enrollments/${encodeURIComponent(node)}/revoke`, {});
      refresh();
    },
  });
