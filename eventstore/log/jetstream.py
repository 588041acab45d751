"""One stream as a log: append all or nothing, read back in order.

What the platform's `EventStore` and the recorders for `eventsourcing` applications share. Every append names what it
expects the last position of each subject to be; the server compares and stores in one step. An unknown outcome
(time-out, lost connection, killed server) is made known before anything is reported: the same messages are sent again
until the server either stores or refuses them, and a refusal is checked against what stands there.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from eventsourcing.persistence import DataError, IntegrityError, NotSupportedError, OperationalError
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from eventstore.log.envelope import Recorded
from eventstore.log.received import EXPECTED, EXPECTED_ON, direct, from_api, is_status, own
from runtime.bus.inbox import Inbox
from runtime.tasks.backoff import Backoff

T = TypeVar("T")

NO_MESSAGE = 10037
MESSAGE_TOO_LARGE = 10054
WRONG_LAST_SEQUENCE = 10071
BATCH_TOO_LARGE = 10199
DUPLICATE = 10201
"""An event of this id was stored lately: this very one, or another aggregate's of the same kind and id.

The server says so of a batch. Of a single publish it acknowledges the other event, under `duplicate`.
"""
PASSING = {
    10158: "a message with the same id is being replicated",
    10163: "the subject's last sequence is not known yet",
    10164: "another message of the subject is being replicated",
    10167: "too many requests",
    10176: "part of the batch got lost",
    10210: "too many batches at once",
}
"""Refusals of what is as it should be: nothing was stored, and a moment later the server can say more."""
OF_COMPANY = (10163, 10164)
"""Those of them that a batch may bring upon itself: one append expects something of a subject that another writes."""
PAGE = 512
RETRY = Backoff(first=0.05, last=1.0)
#: How long one try waits for the server's answer, before it is sent again.
ANSWER_SECONDS = 2.0
_OVERHEAD = 256
"""Bytes left for the headers that name the batch and the message's place in it."""


class Conflict(IntegrityError):
    """Somebody else appended to the aggregate first: load it and decide again. `subject` names it."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"{subject} has moved on")
        self.subject = subject


#: nats-server gives no answer to a message that it could not write.
NOT_STORED = (
    "the log's server is there and did not say in time that it stored this: it is overloaded, or its disk is full; "
    "nats-server has to be started again after a full disk (`nebula up` does that by itself)"
)


class Unavailable(OperationalError):
    """The log cannot be reached, or cannot store, within the time given. Nothing is known to be lost; try again."""


class TooLarge(DataError):
    """An event is larger than the server takes. Nothing was stored."""


class TooMany(NotSupportedError):
    """More events at once than the server stores as one. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class Message:
    """An event about to be appended. `EXPECTED` stands in the headers of each subject's first one."""

    subject: str
    headers: dict[str, str]
    body: bytes


class Stream:
    """One stream, through one connection. `timeout` (seconds) bounds each call."""

    def __init__(self, nc: Client, name: str, *, timeout: float = 5.0) -> None:
        self.name = name
        self._nc = nc
        self._timeout = timeout

    # ── append ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, messages: Sequence[Message], *, unsure: bool = False, together: bool = False) -> int:
        """Store all messages or none; the position of the last one (they stand next to each other).

        `together`: they are of several appends, which can be tried one by one.
        `unsure`: these very messages were sent before with an unknown outcome; when they stand there, that is success.
        Raises Conflict when a subject has moved on, Unavailable when the outcome could not be learned in time,
        TooLarge and TooMany for what the server does not take.
        """
        self._check_sizes(messages)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        failures = 0
        while True:
            problem: dict[str, Any]
            try:
                reply = await self._send(messages)
                problem = reply.get("error") or ({"err_code": DUPLICATE} if reply.get("duplicate") else {})
            except (NatsError, OSError, TimeoutError) as error:
                unsure = True
                failures += 1
                pause = RETRY.after(failures)
                if loop.time() + pause > deadline:
                    if isinstance(error, TimeoutError) and self._nc.is_connected:
                        raise Unavailable(NOT_STORED) from error
                    raise Unavailable(f"the log does not answer: {error!r}") from error
                await asyncio.sleep(pause)
                continue
            if not problem:
                return int(reply["seq"])
            code, text = problem.get("err_code"), problem.get("description")
            if together and code in OF_COMPANY and not unsure:
                raise Conflict(messages[0].subject)
            if code in PASSING and loop.time() < deadline:
                await asyncio.sleep(0.02)
                continue
            if code == MESSAGE_TOO_LARGE:
                raise TooLarge(f"stream {self.name} refuses an event: {text}; raise its max_msg_size or store less")
            if code == BATCH_TOO_LARGE:
                raise TooMany(f"{len(messages)} events cannot be stored as one ({text}); store fewer at once")
            if code not in (WRONG_LAST_SEQUENCE, DUPLICATE):
                raise Unavailable(f"the log refuses to store: {text} ({code})")
            landed = await self._landed(messages) if unsure or code == DUPLICATE else None
            if landed is None:
                raise Conflict(await self._moved(messages))
            return landed

    def _check_sizes(self, messages: Sequence[Message]) -> None:
        """The server answers a message over its limit by closing the connection, for good: so none is sent."""
        limit = self._nc.max_payload
        for message in messages:
            headers = message.headers
            size = len(message.body) + sum(map(len, headers)) + sum(map(len, headers.values())) + 4 * len(headers)
            size += _OVERHEAD
            if size > limit:
                raise TooLarge(
                    f"an event of {len(message.body)} bytes on {message.subject}, {size} with its headers, is over the "
                    f"server's limit of {limit}: store less in it, or raise max_payload in the server's configuration"
                )

    async def _moved(self, messages: Sequence[Message]) -> str:
        """The subject whose expectation does not hold: the server does not say which one of a batch."""
        expecting = [m for m in messages if EXPECTED in m.headers]
        if len(expecting) > 1:
            with contextlib.suppress(Unavailable):
                for message in expecting:
                    last = await self.last_of(message.headers.get(EXPECTED_ON, message.subject))
                    if (last.position if last else 0) != int(message.headers[EXPECTED]):
                        return message.subject
        return messages[0].subject

    async def _landed(self, messages: Sequence[Message]) -> int | None:
        """The position of the last message when these very messages stand in the log already, else None.

        All of them, next to each other: the first one may have been stored before, in other company.
        """
        position = int(messages[0].headers[EXPECTED])
        for index, message in enumerate(messages):
            found = await self.next_of(message.subject, position)
            if found is None or found.body != message.body or dict(found.headers) != own(message.headers):
                return None
            if index and found.position != position + 1:
                return None
            position = found.position
        return position

    async def _send(self, messages: Sequence[Message]) -> dict[str, Any]:
        if len(messages) == 1:
            return await self._request(messages[0], messages[0].headers)
        batch = self._nc.new_inbox().rsplit(".", 1)[-1]
        for index, message in enumerate(messages, start=1):
            headers = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(index)}
            if index == len(messages):
                headers["Nats-Batch-Commit"] = "1"  # answered for all: whatever was wrong before comes to light here
                return await self._request(message, headers)
            await self._nc.publish(message.subject, message.body, headers=headers)
        raise AssertionError("a batch has a last message")

    async def _request(self, message: Message, headers: dict[str, str]) -> dict[str, Any]:
        reply = await self._nc.request(
            message.subject, message.body, timeout=min(self._timeout, ANSWER_SECONDS), headers=headers
        )
        return json.loads(reply.data) if reply.data else {}

    # ── read ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, after: int, filter_: str, limit: int | None = None, *, at_least: int = 0) -> list[Recorded]:
        """Up to `limit` events (None: all) behind position `after`, in order, whose subject matches the filter.

        `at_least`: a position known to hold a match. With several replicas any of them may answer, one that lags too:
        then it is asked again.
        """
        events: list[Recorded] = []
        patience = _Patience(self._timeout)
        while limit is None or len(events) < limit:
            page, more = await self.page(after, filter_, PAGE if limit is None else min(PAGE, limit - len(events)))
            events.extend(page)
            after = page[-1].position if page else after
            if not more and after >= at_least:
                break
            if not more:
                await patience.wait()
        return events

    async def page(self, after: int, filter_: str, limit: int = PAGE) -> tuple[list[Recorded], bool]:
        """One batched direct get: the events, and whether there are more."""
        return await self._until_answered(lambda wait: self._page(after, filter_, limit, wait))

    async def _page(self, after: int, filter_: str, limit: int, wait: float) -> tuple[list[Recorded], bool]:
        ask = {"seq": after + 1, "next_by_subj": filter_, "batch": limit}
        page, pending = await direct_get(self._nc, self.name, ask, wait)
        return page, pending > 0 and bool(page)

    async def last(self, filter_: str, *, at_least: int = 0) -> Recorded | None:
        """The newest event whose subject matches the filter; `at_least` as in `read`."""
        patience = _Patience(self._timeout)
        ask = json.dumps({"last_by_subj": filter_}).encode()
        while True:
            msg = await self._ask(f"$JS.API.DIRECT.GET.{self.name}", ask)
            headers = msg.headers or {}
            if is_status(headers) and headers["Status"] != "404":
                raise Unavailable(f"the log refuses to be read: {headers}")
            found = None if is_status(headers) else direct(msg)
            if (found.position if found else 0) >= at_least:
                return found
            await patience.wait()

    async def last_of(self, subject: str) -> Recorded | None:
        """The newest event of the subject (or filter) as the stream's leader knows it: no replica that lags answers."""
        return await self._from_leader({"last_by_subj": subject})

    async def next_of(self, subject: str, after: int) -> Recorded | None:
        """The first event of the subject behind position `after`, as the stream's leader knows it."""
        return await self._from_leader({"seq": after + 1, "next_by_subj": subject})

    async def _from_leader(self, ask: dict[str, Any]) -> Recorded | None:
        reply = json.loads((await self._ask(f"$JS.API.STREAM.MSG.GET.{self.name}", json.dumps(ask).encode())).data)
        problem = reply.get("error")
        if problem is None:
            return from_api(reply["message"])
        if problem.get("err_code") == NO_MESSAGE:
            return None
        raise Unavailable(f"the log refuses to be read: {problem.get('description')}")

    async def last_position(self) -> int:
        """The position of the newest event of the whole stream (0 when it is empty).

        The server's own number may be higher: a full disk can take a position that no message has.
        """
        info = json.loads((await self._ask(f"$JS.API.STREAM.INFO.{self.name}", b"")).data)
        if "error" in info:
            raise Unavailable(f"the log does not answer: {info['error'].get('description')}")
        state = info["state"]
        if state["messages"] and state["last_seq"] - state["first_seq"] + 1 == state["messages"]:
            return int(state["last_seq"])
        # By its own subjects: of `>` the server looks at the last position alone, which may be without a message.
        newest = [await self.last_of(subject) for subject in info["config"]["subjects"]]
        return max((found.position for found in newest if found is not None), default=0)

    async def _ask(self, subject: str, body: bytes) -> Msg:
        return await self._until_answered(lambda wait: self._nc.request(subject, body, timeout=wait))

    async def _until_answered(self, ask: Callable[[float], Awaitable[T]]) -> T:
        """Read, and read again when the question or the answer was lost: a server that came back knows of neither."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while True:
            try:
                return await ask(min(self._timeout, ANSWER_SECONDS))
            except (NatsError, OSError, TimeoutError) as error:
                if loop.time() >= deadline:
                    raise Unavailable(f"the log does not answer: {error!r}") from error
                await asyncio.sleep(0.05)


class _Patience:
    """Waits for a replica that lags; raises Unavailable when it does for too long."""

    def __init__(self, timeout: float) -> None:
        self._deadline = asyncio.get_running_loop().time() + timeout

    async def wait(self) -> None:
        if asyncio.get_running_loop().time() > self._deadline:
            raise Unavailable("the replica that answers lacks events that are known to be stored")
        await asyncio.sleep(0.01)


async def direct_get(nc: Client, stream: str, ask: dict[str, Any], wait: float) -> tuple[list[Recorded], int]:
    """What one batched direct get brings, and how much more there would be. `wait`: seconds between two messages.

    Raises Unavailable when the server refuses, TimeoutError and nats.errors.Error when it does not answer.
    """
    found: list[Recorded] = []
    async with Inbox(nc) as inbox:
        await nc.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(ask).encode(), reply=inbox.subject)
        while True:
            for msg in await inbox.take(wait, PAGE):
                headers = msg.headers or {}
                if not is_status(headers):
                    found.append(direct(msg))
                elif headers["Status"] in ("204", "404"):
                    return found, int(headers.get("Nats-Num-Pending", "0"))
                else:
                    raise Unavailable(f"the log refuses to be read: {headers}")
