/** What happened to a VM as operations, what one waits for, and its host keys as lines. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {awaited, fits, grouped, took, WHO} from "../../../gateway/console/web/pages/vm-groups.js";
import {knownHosts} from "../../../gateway/console/web/pages/vm-text.js";

const item = (position, type, operation = null, more = {}) => ({
  position,
  type,
  time: new Date(Date.UTC(2026, 0, 1, 12, 0, position)).toISOString(),
  actor: "user:ann",
  kind: "vm",
  id: "v",
  project: "p",
  operation,
  words: null,
  why: null,
  ...more,
});
const shape = groups => groups.map(({operation, items}) => [operation, items.map(({position}) => position)]);
const newest = (...items) => items.toReversed();

test("events are grouped by their operations, the newest operation first", () => {
  const life = newest(
    item(1, "VmRequested", "create"), item(2, "VmScheduled", "create"), item(3, "VmStarted", "create"),
    item(4, "VmAddressesChanged"), item(5, "VmGuestReady"), item(6, "VmStopRequested", "stop"), item(7, "VmConsoleOpened"), item(8, "VmStopped", "stop"),
  );
  assert.deepEqual(shape(grouped(life)), [["stop", [6, 8]], [null, [7]], ["create", [1, 2, 3, 5]], [null, [4]]]);
  const create = grouped(life).find(({operation}) => operation === "create");
  assert.equal(create.ready.position, 5);
  assert.deepEqual(grouped([]), []);
  assert.deepEqual(life.map(({position}) => position), [8, 7, 6, 5, 4, 3, 2, 1], "what it was given stays as it was");
});

test("a guest that is ready belongs to the start before it only", () => {
  const ready = type => grouped(newest(item(1, "VmStarted", "create"), item(2, type), item(3, "VmGuestReady"))).some(({ready: found}) => found !== null);
  assert.equal(ready("VmAddressesChanged"), true);
  for (const end of ["VmStopped", "VmGuestRebooted", "VmLost", "VmFailed"]) assert.equal(ready(end), false, end);
  const twice = grouped(newest(item(1, "VmStarted", "create"), item(2, "VmGuestReady"), item(3, "VmGuestReady")));
  assert.deepEqual(shape(twice), [[null, [3]], ["create", [1, 2]]]);
  assert.deepEqual(shape(grouped([item(9, "VmGuestReady")])), [[null, [9]]], "its start is not among those that are shown");
});

test("how long an operation took is said by the operation, if it is known", () => {
  const [group] = grouped(newest(item(1, "VmRequested", "create"), item(4, "VmStarted", "create"), item(9, "VmGuestReady")));
  const known = {accepted_at: "2026-01-01T12:00:00Z", ended_at: "2026-01-01T12:00:04.5Z"};
  assert.deepEqual(took(group, known), {begun: Date.UTC(2026, 0, 1, 12), whole: 4500, ready: 9000});
  assert.equal(took(group, {...known, ended_at: null}).whole, null, "it has not ended");
  assert.equal(took(group, undefined).whole, 3000);
  assert.equal(took(grouped([item(1, "VmRequested", "x")])[0], undefined).whole, null);
  assert.equal(took(group, {...known, accepted_at: "2026-01-01T13:00:00Z"}).whole, 0, "clocks differ");
});

test("events are searched by what is shown of them, and by who caused them", () => {
  const started = item(3, "VmStarted", "op-1", {actor: "node:n1", words: "VM started on node n1", why: "node n1 reported it"});
  for (const good of [undefined, "", "started", "NODE started", "op-1", "VmStarted", "2026-01-01"]) assert.equal(fits(started, good, undefined), true, String(good));
  for (const wrong of ["stopped", "started n2", "<script>"]) assert.equal(fits(started, wrong, undefined), false, wrong);
  assert.deepEqual(WHO.filter(who => fits(started, "", who)), ["nodes"]);
  assert.deepEqual(WHO.filter(who => fits(item(1, "VmRequested"), "", who)), ["people"]);
  assert.deepEqual(WHO.filter(who => fits(item(1, "VmLost", null, {actor: "system:liveness"}), "", who)), ["platform"]);
  assert.deepEqual(WHO.filter(who => fits(item(1, "VmGuestReady", null, {actor: "guest:v"}), "", who)), ["guests"]);
  assert.equal(fits(started, "", "somebody"), false);
});

test("what an operation waits for", () => {
  const vm = {phase: "running", node: "n1", pending: {operation: "o", verb: "stop", since: "", deadline: ""}, preparing: null, considered: []};
  assert.equal(awaited(vm, []), "Waiting for its guest to shut down");
  assert.equal(awaited({...vm, phase: "lost"}, []), "Waiting for node n1 to come back");
  assert.equal(awaited({...vm, phase: "requested", node: null}, []), "Waiting for a node");
  const full = [{node: "n1", reason: "has 1 GiB of disk left", more: 0}, {node: "n2", reason: null, more: 0}];
  assert.equal(awaited({...vm, phase: "unschedulable", node: null, considered: full}, []), "Waiting for room on a node (n1: has 1 GiB of disk left)");
  const preparing = {...vm, phase: "scheduled", preparing: "image"};
  assert.equal(awaited(preparing, []), "Node n1 prepares it: image");
  assert.equal(awaited(preparing, [item(2, "VmPreparing", "o", {words: "Node n1 makes the disk"})]), "Node n1 makes the disk");
  assert.equal(awaited({...vm, pending: {...vm.pending, verb: "of a later version"}}, []), "Waiting for node n1");
});

test("host keys become lines of known_hosts, and nothing else does", () => {
  const key = {type: "ssh-ed25519", key: "AAAAC3Nza+/=="};
  assert.equal(knownHosts({addresses: ["10.0.0.5", "fd00::5"], host_keys: [key]}), "10.0.0.5,fd00::5 ssh-ed25519 AAAAC3Nza+/==\n");
  assert.equal(knownHosts({addresses: [], host_keys: [key]}), "");
  assert.equal(knownHosts({addresses: ["10.0.0.5\n* ssh-rsa AAAA"], host_keys: [key]}), "");
  for (const wrong of [{type: "ssh-ed25519\nevil", key: "AAAA"}, {type: "x", key: "AAAA\n* x y"}, {type: "x", key: "AAAA comment"}]) {
    assert.equal(knownHosts({addresses: ["10.0.0.5"], host_keys: [wrong, key]}).split("\n").length, 2, JSON.stringify(wrong));
  }
});
