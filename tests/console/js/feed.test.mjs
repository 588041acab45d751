/** The feed and the hub, on answers that the tests make. */

import assert from "node:assert/strict";
import {afterEach, test} from "node:test";

import {Feed} from "../../../gateway/console/web/core/feed.js";
import {Hub} from "../../../gateway/console/web/core/hub.js";

const real = globalThis.fetch;
afterEach(() => {
  globalThis.fetch = real;
});

const item = (position, prev) =>
  `id: ${position}\nevent: nebula.vm.VmStarted\ndata: ${JSON.stringify({
    position, prev, type: "nebula.vm.VmStarted", subject: `nebula.events.web.vm.v${position}`, time: new Date().toISOString(), actor: "a", operationid: "o", data: {n: position},
  })}\n\n`;

/** Answers the calls one after the other: a text is a feed that ends, an object is a refusal. The last one stays open. */
function answers(...all) {
  const asked = [];
  globalThis.fetch = async (_, {headers, signal}) => {
    asked.push(headers["Last-Event-ID"]);
    const next = all[asked.length - 1];
    if (next === undefined) return new Promise((_, reject) => signal.addEventListener("abort", () => reject(new DOMException("", "AbortError"))));
    if (next === null) throw new TypeError("network");
    if (typeof next !== "string") return new Response(JSON.stringify(next), {status: next.status});
    return new Response(next, {headers: {"Content-Type": "text/event-stream"}});
  };
  return asked;
}

/** A feed that has been read until it asks for the last time. */
async function read(after, asked, count) {
  const found = {events: [], states: [], missed: 0};
  const feed = new Feed(after, {
    events: batch => found.events.push(...batch.map(({position}) => position)),
    state: state => found.states.push(state),
    missed: () => (found.missed += 1),
  });
  const running = feed.run();
  while (asked.length < count && found.states.at(-1)?.name !== "ended") {
    feed.again();
    await new Promise(resolve => setTimeout(resolve, 5));
  }
  feed.stop();
  await running;
  return found;
}

test("a feed resumes after the last event that it has read", async () => {
  const asked = answers(`: the log\nid: 3\n\n${item(4, 3)}${item(6, 4)}`, item(9, 6), null, item(11, 9));
  const {events, states} = await read(3, asked, 5);
  assert.deepEqual(events, [4, 6, 9, 11]);
  assert.deepEqual(asked, ["3", "6", "9", "9", "11"]);
  assert.ok(states.some(({name, words}) => name === "lost" && words === "the gateway does not answer"));
  assert.ok(states.some(({name, since, next}) => name === "lost" && next >= since));
  assert.equal(states.filter(({name}) => name === "live").length > 0, true);
});

test("a comment moves the place to resume at, and not what comes before the next event", async () => {
  const asked = answers(`${item(4, 3)}: alive\nid: 20\n\n${item(21, 4)}`, `: alive\nid: 30\n\n`, item(31, 30));
  const {events} = await read(3, asked, 4);
  assert.deepEqual(events, [4, 21, 31]);
  assert.deepEqual(asked, ["3", "21", "30", "31"]);
});

test("an event that does not follow is not taken, and is asked for again", async () => {
  const asked = answers(`${item(4, 3)}${item(8, 6)}`, `${item(6, 4)}${item(8, 6)}`);
  const {events, missed, states} = await read(3, asked, 3);
  assert.deepEqual(events, [4, 6, 8], "none is lost, none is twice");
  assert.deepEqual(asked, ["3", "4", "8"]);
  assert.equal(missed, 0);
  assert.ok(states.some(({words}) => /between 4 and 8/.test(words ?? "")));
});

test("a gap that stays is told", async () => {
  const asked = answers(item(8, 6), item(8, 6), item(8, 6));
  const {events, missed} = await read(3, asked, 4);
  assert.deepEqual(events, []);
  assert.ok(missed > 0);
});

test("a reader that is not welcome any more stops", async () => {
  const ended = answers(`${item(4, 3)}: ended: forbidden\n\n${item(5, 4)}`);
  const one = await read(3, ended, 9);
  assert.deepEqual([one.states.at(-1), ended.length], [{name: "ended", words: "forbidden"}, 1]);
  const refused = answers({status: 401, detail: "this token is over"});
  const other = await read(3, refused, 9);
  assert.deepEqual([other.states.at(-1), refused.length], [{name: "ended", words: "this token is over"}, 1]);
});

test("a gateway that cannot answer now is asked again", async () => {
  const asked = answers({status: 503, detail: "the log cannot be reached"}, {status: 500}, item(4, 3));
  const {events, states} = await read(3, asked, 4);
  assert.deepEqual(events, [4]);
  assert.ok(states.some(({name, words}) => name === "lost" && words === "the log cannot be reached"));
});

/** A tab of the hub: the messages that it gets. */
function tab(hub) {
  const {port1, port2} = new MessageChannel();
  hub.add(port1);
  const got = [];
  port2.onmessage = ({data}) => got.push(data);
  const positions = () => got.flatMap(({events = []}) => events.map(({position}) => position));
  return {say: message => port2.postMessage(message), got, positions, close: () => (port1.close(), port2.close())};
}

const until = async check => {
  for (let tries = 0; !check(); tries += 1) {
    assert.ok(tries < 2000, "nothing came");
    await new Promise(resolve => setTimeout(resolve, 2));
  }
};

test("tabs share one feed, and each gets what it has not read", async () => {
  const hub = new Hub();
  const asked = answers(`${item(4, 3)}${item(6, 4)}`);
  const [one, two, late] = [tab(hub), tab(hub), tab(hub)];
  one.say({join: 3});
  await until(() => one.positions().length === 2);
  two.say({join: 4});
  await until(() => two.positions().length === 1);
  assert.deepEqual([one.positions(), two.positions()], [[4, 6], [6]]);
  late.say({join: 1});
  await until(() => late.got.some(({missed}) => missed));
  one.say({leave: true});
  two.say({end: true});
  await until(() => late.got.some(({state}) => state?.name === "ended"));
  assert.ok(!one.got.some(({state}) => state?.name === "ended"), "a tab that has left hears nothing");
  assert.equal(asked[0], "3");
  for (const each of [one, two, late]) each.close();
});
