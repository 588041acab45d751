/** What the overview and the slider know: when something is done again, what waits while somebody reads, where a slider goes. */

import assert from "node:assert/strict";
import {test} from "node:test";
import {setTimeout as pause} from "node:timers/promises";

import {Pace} from "../../../gateway/console/web/core/pace.js";
import {markFrom, positionOf, stepped, wordsOf} from "../../../gateway/console/web/parts/slider-model.js";

test("something is done without delay at first, and never twice at the same time", async () => {
  let running = 0;
  let done = 0;
  /** @type {() => void} */ let end = () => {};
  const pace = new Pace(async () => {
    running += 1;
    assert.equal(running, 1);
    await new Promise(resolve => (end = () => resolve(undefined)));
    running -= 1;
    done += 1;
  }, 20);
  pace.soon();
  pace.soon();
  await pause(5);
  assert.equal(running, 1, "it has begun");
  pace.soon();
  pace.soon();
  await pause(40);
  assert.equal(running, 1);
  end();
  await pause(60);
  assert.deepEqual([running, done], [1, 1], "once more, since it was said while it ran");
  end();
  await pause(60);
  assert.deepEqual([running, done], [0, 2], "nobody has said it again");
  pace.soon();
  pace.stop();
  await pause(60);
  assert.equal(running, 0);
});

test("later it waits", async () => {
  let began = 0;
  const pace = new Pace(async () => void (began += 1), 60_000);
  for (let number = 0; number < 5; number += 1) {
    pace.soon();
    await pause(15);
  }
  assert.equal(began, 1);
  pace.stop();
});

const MARKS = [
  {first: 1, time: "2026-01-01T00:00:00Z", events: 1, failures: 0},
  {first: 10, time: "2026-01-02T00:00:00Z", events: 20, failures: 2},
  {first: 40, time: "2026-01-03T00:00:00Z", events: 1000, failures: 0},
];

test("a slider goes by events and by marks", () => {
  assert.equal(positionOf(null, MARKS, 50), 50);
  assert.equal(positionOf("17", MARKS, 50), 17);
  assert.equal(positionOf("99", MARKS, 50), 50);
  assert.equal(positionOf("2026-01-02T12:00:00Z", MARKS, 50), 10);
  assert.equal(positionOf("2025-01-01T00:00:00Z", MARKS, 50), 1);
  assert.equal(stepped(null, -1, MARKS, 50), "49");
  assert.equal(stepped("49", 1, MARKS, 50), null);
  assert.equal(stepped("1", -1, MARKS, 50), "1");
  assert.deepEqual([markFrom(50, -1, MARKS, 50), markFrom(40, -1, MARKS, 50), markFrom(1, -1, MARKS, 50)], [40, 10, 1]);
  assert.deepEqual([markFrom(1, 1, MARKS, 50), markFrom(40, 1, MARKS, 50), markFrom(3, 1, [], 50)], [10, 50, 50]);
});

test("a mark in words", () => {
  assert.equal(wordsOf(5, MARKS)?.events, "1 event");
  assert.equal(wordsOf(12, MARKS)?.events, "20 events, 2 failed");
  assert.equal(wordsOf(45, MARKS)?.events, "1,000 events");
  assert.equal(wordsOf(45, []), null);
});
