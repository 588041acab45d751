/** What connections to guests end with, and how usage becomes a chart. */

import assert from "node:assert/strict";
import {test} from "node:test";

import {endOf} from "../../../gateway/console/web/core/socket.js";

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
