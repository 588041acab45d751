/** The modules that know no browser. */

import assert from "node:assert/strict";
import {test} from "node:test";

import * as format from "../../../gateway/console/web/core/format.js";
import {elsewhere, of, parsed, Problem} from "../../../gateway/console/web/core/problem.js";
import {filled, matched, queryOf, safe} from "../../../gateway/console/web/core/router.js";
import {parser} from "../../../gateway/console/web/core/sse.js";
import {isPosition, momentOf, words} from "../../../gateway/console/web/core/time.js";
import {compared, drawn, scrolled, selection, sorted} from "../../../gateway/console/web/parts/table-model.js";

test("a feed that comes in pieces is the same feed", () => {
  const text = ": the log\nid: 4\n\nid: 5\nevent: nebula.vm.VmStarted\ndata: {\"a\":\ndata: 1}\n\n: alive\n\n: ended: forbidden\r\n\r\n";
  const whole = parser()(text);
  assert.deepEqual(whole.map(({id, data, comment}) => [id, data, comment]), [
    ["4", "", "the log"],
    ["5", "{\"a\":\n1}", ""],
    [null, "", "alive"],
    [null, "", "ended: forbidden"],
  ]);
  for (let size = 1; size < text.length; size += 1) {
    const parse = parser();
    const found = [];
    for (let at = 0; at < text.length; at += size) found.push(...parse(text.slice(at, at + size)));
    assert.deepEqual(found, whole, `in pieces of ${size}`);
  }
});

test("a path is matched by its parts", () => {
  assert.deepEqual(matched("/projects/:project/vms", "/projects/web/vms"), {project: "web"});
  assert.deepEqual(matched("/projects/:project", "/projects/a%20b"), {project: "a b"});
  for (const wrong of ["/projects", "/projects/", "/projects/..", "/projects/a/b", "/projects/%2e%2e", "/projects/a%2fb", "/projects/a%5cb", "/projects/%zz", "/Projects/a"]) {
    assert.equal(matched("/projects/:project", wrong), null, wrong);
  }
});

test("a path is filled with what is encoded", () => {
  assert.equal(filled("/projects/:project/vms/:vm", {project: "a/b", vm: "?x"}), "/projects/a%2Fb/vms/%3Fx");
  for (const wrong of [{}, {project: ""}, {project: ".."}]) assert.throws(() => filled("/projects/:project", wrong));
  assert.equal(queryOf({at: "5", q: "", none: null, off: false, n: 0}), "?at=5&n=0");
  assert.equal(queryOf({}), "");
});

test("only an address of the console is gone to", () => {
  for (const good of ["/console/", "/console/projects/web/vms?at=5&q=a//b", "/console/nodes#x"]) assert.equal(safe(good), good);
  const wrong = ["", null, undefined, "//evil.example", "https://evil.example", "/v1/projects", "/console", "/console//evil.example",
    "/console/\\evil.example", "/\\evil.example", "javascript:alert(1)", "/console/\t/evil", "/console/files/x/app.js", "/consoles/x"];
  for (const each of wrong) assert.equal(safe(each), "/console/", String(each));
});

test("a moment in an address", () => {
  for (const good of ["1", "123456", "2026-11-28T12:00:00Z", "2026-11-28T12:00:00.123456+01:00"]) assert.equal(momentOf(good), good);
  for (const wrong of [undefined, "", "0", "-1", "1.5", "now", "2026-11-28", "2026-13-41T99:00:00Z", "1e9", "12345678901234567890"]) assert.equal(momentOf(wrong), null, String(wrong));
  assert.equal(isPosition("17"), true);
  assert.match(words("17", {position: 17, time: "2026-11-28T12:00:00Z"}), /2026-11-28 .*position 17/);
  assert.match(words("2026-11-28T12:00:00Z", null), /as it was at 2026/);
});

test("a problem is read from any answer", () => {
  const problem = parsed(422, JSON.stringify({code: "invalid_request", detail: "wrong", request_id: "r", errors: [{field: "name", detail: "too long"}, {field: "labels.a", detail: "bad"}, "x", null]}));
  assert.deepEqual(of(problem, "name"), ["too long"]);
  assert.deepEqual(of(problem, "labels"), ["a: bad"]);
  assert.deepEqual(of(null, "labels"), []);
  assert.deepEqual(elsewhere(problem, ["name"]), [{field: "labels.a", detail: "bad"}]);
  for (const text of ["", "<html>", "null", "[]", "5", '{"detail": 5, "errors": {}}']) {
    const found = parsed(502, text);
    assert.ok(found instanceof Problem);
    assert.deepEqual([found.status, found.code, found.errors], [502, "status_502", []]);
  }
});

test("sizes and times are short", () => {
  assert.equal(format.bytes(0), "0 B");
  assert.equal(format.bytes(1536), "1.5 KiB");
  assert.equal(format.mib(512), "512 MiB");
  assert.equal(format.gib(2048), "2 TiB");
  assert.equal(format.bytes(null), "–");
  assert.equal(format.duration(340), "340 ms");
  assert.equal(format.duration(12_000), "12 s");
  assert.equal(format.duration(3 * 60_000), "3 min");
  assert.equal(format.duration(50 * 3600_000), "2 d");
  assert.equal(format.ago("2026-11-28T12:00:00Z", Date.parse("2026-11-28T12:05:00Z")), "5 min ago");
  assert.equal(format.ago("2026-11-28T12:05:00Z", Date.parse("2026-11-28T12:00:00Z")), "in 5 min");
  assert.equal(format.ago("no time"), "no time");
  assert.equal(format.moment(null), "–");
  assert.equal(format.words("VmGuestReady"), "VM guest ready");
  assert.equal(format.words("timed_out"), "Timed out");
  assert.equal(format.counted(1, "VM"), "1 VM");
  assert.equal(format.counted(10_000, "VM"), "10,000 VMs");
});

test("a table draws what is seen, wherever it is scrolled to", () => {
  for (const count of [0, 1, 10, 39, 10_000]) {
    for (const top of [0, 1, 43, 44, 4400, 439_000, 1e9, -50]) {
      const {from, to} = drawn(top, 600, 44, count);
      assert.ok(0 <= from && from <= to && to <= count, `${count} ${top}: ${from} ${to}`);
      assert.ok(to - from <= 30);
      const first = Math.floor(Math.max(0, top) / 44);
      if (first < count) assert.ok(from <= first && to >= Math.min(count, first + 13), `${count} ${top}: ${from} ${to}`);
    }
  }
  assert.equal(scrolled(0, 500, 400, 40), 0);
  assert.equal(scrolled(20, 0, 400, 40), 440);
  assert.equal(scrolled(12, 400, 400, 40), 400);
});

test("rows are sorted as people sort", () => {
  const names = ["web-10", "web-2", "", "Web-1", null].map((name, id) => ({name, id}));
  assert.deepEqual(sorted(names, row => row.name).map(({name}) => name), ["Web-1", "web-2", "web-10", "", null]);
  assert.deepEqual(sorted(names, row => row.name, true).slice(0, 3).map(({name}) => name).filter(Boolean), ["web-10", "web-2", "Web-1"]);
  assert.ok(compared(2, 10) < 0 && compared("b", "a") > 0 && compared(null, 1) > 0);
  assert.deepEqual(sorted(names, null).length, 5);
});

test("rows are selected one by one, and by ranges", () => {
  const ids = ["a", "b", "c", "d"];
  const one = selection(new Set(), ids, "b");
  assert.deepEqual([...one], ["b"]);
  assert.deepEqual([...selection(one, ids, "d", "b")], ["b", "c", "d"]);
  assert.deepEqual([...selection(one, ids, "a", "b")].sort(), ["a", "b"]);
  assert.deepEqual([...selection(one, ids, "b")], []);
  assert.deepEqual([...selection(new Set(ids), ids, "c", "gone")].sort(), ["a", "b", "d"]);
  assert.deepEqual([...selection(new Set(["c", "d"]), ids, "d", "b")], [], "a range that begins with an empty box empties");
});
