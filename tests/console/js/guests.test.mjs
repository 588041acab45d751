/** What connections to guests end with, and how usage becomes a chart. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {endOf} from "../../../gateway/console/web/core/socket.js";
import {plain} from "../../../gateway/console/web/pages/vm-text.js";
import {charts} from "../../../gateway/console/web/pages/vm-series.js";

test("the end of a connection says why, and whether to try again", () => {
  const refused = endOf(4409, "console_in_use", true, JSON.stringify({code: "console_in_use", detail: "bob has this console"}));
  assert.deepEqual([refused.problem?.status, refused.problem?.code, refused.problem?.detail, refused.again], [409, "console_in_use", "bob has this console", false]);
  assert.equal(endOf(4503, "node_unavailable", true, "").problem?.status, 503);
  assert.equal(endOf(1006, "", false, "").problem?.code, "unreachable");
  assert.equal(endOf(1006, "", true, "").again, true);
  assert.equal(endOf(1012, "this gateway is being stopped", true, "").again, true);
  const off = endOf(1000, "the VM is off", true, "");
  assert.deepEqual([off.problem, off.words, off.again], [null, "The connection has ended: the VM is off.", false]);
  assert.match(endOf(1008, "the token was revoked", true, "").words, /revoked/);
});

test("a series becomes charts, and what is unknown stays unknown", () => {
  const off = {at: "2026-01-01T11:00:30Z", cpu: null, memory_bytes: null, disk_bytes: null, disk_read: null, disk_written: null, net_in: null, net_out: null};
  const on = {at: "2026-01-01T11:01:00Z", cpu: 0.5, memory_bytes: 3 * 2 ** 30, disk_bytes: 1, disk_read: 2048, disk_written: 0, net_in: 1, net_out: 5};
  const series = {from: "2026-01-01T11:00:00Z", to: "2026-01-01T12:00:00Z", step_seconds: 30, size: {cpus: 2, memory_bytes: 2 * 2 ** 30, disk_bytes: 1}};
  const [cpu, memory, disk, network] = charts({...series, points: [off, on]});
  assert.deepEqual([cpu.lines[0].values, cpu.most, cpu.newest], [[null, 0.5], 2, "CPUs 0.50 of 2.00"]);
  assert.deepEqual([memory.most, memory.newest], [3 * 2 ** 30, "Memory 3 GiB of 2 GiB"]);
  assert.deepEqual([disk.most, disk.newest], [null, "Read 2 KiB/s, Written 0 B/s"]);
  assert.deepEqual(network.lines.map(({values}) => values), [[null, 1], [null, 5]]);
  const [ended] = charts({...series, points: [on, off]});
  assert.equal(ended.newest, "CPUs unknown of 2.00");
  assert.equal(charts({...series, size: {cpus: null, memory_bytes: null, disk_bytes: null}, points: []})[0].newest, "CPUs unknown");
});

test("a console log is read without what only a terminal understands", () => {
  assert.equal(plain("\u001b[1;31mred\u001b[0m \u001b]0;title\u0007\u001b]8;;https://x\u001b\\link\u001b(B\u001b=\r\nnext\tline\r"), "red link\nnext\tline");
  assert.equal(plain("a\u0000\u0008\u009bb\u202ec"), "abc");
  assert.equal(plain("<b>"), "<b>");
  assert.equal(plain("unfinished \u001b[3"), "unfinished ");
});
