/** The list of VMs: which are shown, what a dialogue sends, and the same as a command line. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {curl} from "../../../gateway/console/web/parts/shell.js";
import {sorted} from "../../../gateway/console/web/parts/table-model.js";
import {changed} from "../../../gateway/console/web/pages/vms/changes.js";
import {bodyOf, cliOf, countOf, DEFAULTS, numbered} from "../../../gateway/console/web/pages/vms/create-call.js";
import {aged, choices, found, keep, orderOf, remembered} from "../../../gateway/console/web/pages/vms/model.js";

const NOW = Date.parse("2026-11-28T12:00:00Z");
const vm = (name, more = {}) => ({
  id: `id-${name}`, project: "web", name, phase: "running", ready: true, pending: null, node: "n1", addresses: ["10.0.0.1"], image: "debian-12", flavor: null,
  vcpus: 1, memory_mib: 512, disk_gib: 4, tags: [], labels: {}, description: null, created_at: "2026-11-28T11:30:00Z", ...more,
});
const names = rows => rows.map(({name}) => name);

test("rows are found by each filter, and by all of them together", () => {
  const rows = [
    vm("a", {tags: ["blue"], labels: {team: "x"}}),
    vm("b", {phase: "stopped", node: null, labels: {team: "y", odd: ""}}),
    vm("c", {project: "shop", image: "alma", vcpus: 2, created_at: "2026-11-20T00:00:00Z", description: "The Shop"}),
  ].map(keep);
  const by = query => names(found(rows, query, NOW));
  assert.deepEqual(by({}), ["a", "b", "c"]);
  assert.deepEqual(by({tag: "blue"}), ["a"]);
  assert.deepEqual(by({label: "team"}), ["a", "b"]);
  assert.deepEqual(by({label: "team=y"}), ["b"]);
  assert.deepEqual(by({label: "odd"}), ["b"]);
  assert.deepEqual(by({label: "tea"}), []);
  assert.deepEqual(by({node: "n1", project: "web"}), ["a"]);
  assert.deepEqual(by({image: "alma"}), ["c"]);
  assert.deepEqual(by({size: "1x512x4"}), ["a", "b"]);
  assert.deepEqual(by({age: "<1h"}), ["a", "b"]);
  assert.deepEqual(by({age: ">7d"}), ["c"]);
  assert.deepEqual(by({q: "shop THE"}), ["c"]);
  assert.deepEqual(by({q: "10.0.0.1", phase: "stopped"}), ["b"]);
  assert.deepEqual(by({unknown: "x", sort: "name", at: "5"}), ["a", "b", "c"]);
  assert.equal(keep(vm("d", {phase: "deleted"})), null);
  const offered = Object.fromEntries(choices(rows, true).map(({name, options}) => [name, options.map(each => each.value ?? each)]));
  assert.deepEqual(offered.project, ["shop", "web"]);
  assert.deepEqual(offered.label, ["odd", "team=x", "team=y"]);
  assert.deepEqual(offered.size, ["1x512x4", "2x512x4"]);
  assert.ok(!choices(rows, false).some(({name}) => name === "project"));
});

test("an age that nobody can mean excludes nothing", () => {
  for (const range of ["", "1h", "<h", "<1w", "<<1h", "<999999d", "NaN"]) assert.equal(aged("2020-01-01T00:00:00Z", range, NOW), true, range);
  assert.equal(aged("2026-11-28T11:00:00Z", "<1h", NOW), false);
  assert.equal(aged("2026-11-28T11:00:01Z", "<1h", NOW), true);
});

test("an order of an address", () => {
  assert.deepEqual(orderOf("-name"), {name: "name", descending: true});
  assert.deepEqual(orderOf("created"), {name: "created", descending: false});
  assert.deepEqual(orderOf(undefined), {name: null, descending: false});
});

test("10,000 rows are in order in less than a frame's patience", () => {
  const rows = Array.from({length: 10_000}, (_, at) => ({name: `web-${(at * 7919) % 10_000}`}));
  const began = process.cpuUsage().user;
  assert.deepEqual(names(sorted(rows, row => row.name).slice(0, 3)), ["web-0", "web-1", "web-2"]);
  assert.ok(process.cpuUsage().user - began < 1_000_000, "a second of CPU time is ten times too much");
  assert.deepEqual(names(sorted([{name: "é2"}, {name: "E10"}, {name: "e1"}], row => row.name)), ["e1", "é2", "E10"]);
});

test("a value is made again only of something else", () => {
  let made = 0;
  const sum = remembered((one, other) => {
    made += 1;
    return one + other;
  });
  assert.deepEqual([sum(1, 2), sum(1, 2), sum(1, 3), sum(1, 2)], [3, 3, 4, 3]);
  assert.equal(made, 3);
});

test("tags and labels are added to what there is, and removed from it", () => {
  const of = more => ({add: [], remove: [], set: {}, drop: [], ...more});
  const one = {tags: ["a", "b"], labels: {team: "x", keep: "1"}};
  assert.deepEqual(changed(one, of({add: ["c", "a"], remove: ["b"]})), {tags: ["a", "c"]});
  assert.deepEqual(changed(one, of({set: {team: "y"}, drop: ["keep"]})), {labels: {team: "y"}});
  assert.equal(changed(one, of({add: ["a"], remove: ["z"], set: {team: "x"}, drop: ["none"]})), null);
  assert.deepEqual(changed(one, of({remove: ["a", "b"], drop: ["team", "keep"]})), {tags: [], labels: {}});
});

/** A form, as far as calls are made of it. */
const form = values => {
  const all = {...DEFAULTS, ...values};
  return {text: name => all[name] ?? "", number: name => ((all[name] ?? "") === "" ? null : Number(all[name]))};
};

test("what a form sends has what was typed, and nothing else", () => {
  const plain = {name: "a", image: "blank", vcpus: 1, memory_mib: 512, disk_gib: 4};
  assert.deepEqual(bodyOf(form({name: " a ", image: "blank"})), plain);
  const all = {tags: "blue, red", region: "r1", restart_policy: "always", watchdog: "reset", protected: "true", labels: "a=b\nc", description: "It's", ssh_keys: "k1\n\nk2", user_data: "#!x\n"};
  assert.deepEqual(bodyOf(form({name: "a", image: "blank", ...all})), {
    ...plain,
    ...{tags: ["blue", "red"], region: "r1", restart_policy: "always", watchdog: "reset", protected: true, labels: {a: "b", c: ""}, description: "It's", ssh_keys: ["k1", "k2"], user_data: "#!x\n"},
  });
  assert.deepEqual(bodyOf(form({name: "a", image: "blank", flavor: "small"})), {name: "a", image: "blank", flavor: "small"});
  for (const [count, meant] of [["", 1], ["0", 1], ["-5", 1], ["3", 3], ["2.9", 2], ["1e9", 100], ["x", 1]]) assert.equal(countOf(form({count})), meant, count);
});

test("a command line says the same", () => {
  const body = {name: "a", image: "blank", flavor: "small", tags: ["t"], labels: {k: "v w"}, protected: true, description: "It's", user_data: "#!x\n'"};
  assert.equal(cliOf("p", body), `printf %s '#!x\n'\\''' | nebula vm create a --project p --image blank --flavor small --tag t --label 'k=v w' --description 'It'\\''s' --protected --user-data /dev/stdin`);
  assert.equal(cliOf("p", {name: "a b", image: "blank"}, 3), `for i in $(seq 3); do nebula vm create 'a b'-"$i" --project p --image blank; done`);
  assert.equal(numbered({name: "a", vcpus: 1}, 2).name, "a-2");
  assert.match(curl("POST", "/v1/x", {vcpus: 1, name: "a'b"}, 2, "http://h"), /^for i in \$\(seq 2\); do curl .*-d '\{"name":"a'\\''b-'"\$i"'","vcpus":1\}'; done$/);
  assert.match(curl("POST", "/v1/x", {name: "a"}, 1, "http://h"), /-d '\{"name":"a"\}'$/);
});
