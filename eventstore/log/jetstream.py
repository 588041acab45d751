"""One stream as a log: append all messages or none, and read them in order.

The platform's `EventStore` and the recorders for `eventsourcing` applications both use it. Each append states the
expected last position of each subject; the server compares and stores in one step. If the outcome is unknown (time-out,
lost connection, killed server), the same messages are sent again until the server stores or refuses them. After a
refusal, the log is read to find out whether the first try was stored.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from eventsourcing.persistence import DataError, IntegrityError, NotSupportedError, OperationalError
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from eventstore.log.envelope import Recorded
from eventstore.log.macs import EventKeys
from eventstore.log.received import EXPECTED, EXPECTED_ON, direct, from_api, is_status, own
from runtime.bus.api import api
from runtime.bus.inbox import Inbox
from runtime.tasks.backoff import Backoff

T = TypeVar("T")

_decoded = msgspec.json.Decoder[Any]().decode

NO_MESSAGE = 10037
MESSAGE_TOO_LARGE = 10054
WRONG_LAST_SEQUENCE = 10071
BATCH_TOO_LARGE = 10199
NO_BATCHES = 10174
DUPLICATE = 10201
"""An event with this id was stored recently: the same one, or one of another aggregate with the same kind and id.

The server refuses a batch with this code. A single publish is acknowledged with the position of the other event and
`duplicate`.
"""
TRANSIENT = {
    10158: "a message with the same id is being replicated",
    10163: "the subject's last sequence is not known yet",
    10164: "another message of the subject is being replicated",
    10167: "too many requests",
    10176: "part of the batch was lost",
    10210: "too many batches at once",
}
"""Refusals of correct messages: nothing was stored, and a retry after a moment gets another answer."""
CAUSED_BY_GROUP = (10163, 10164)
"""Transient refusals that a batch of several appends can cause: one append checks a subject that another one writes."""
PAGE = 512
RETRY = Backoff(first=0.05, last=0.25)
#: Seconds to wait for the server's answer before a message is sent again.
ANSWER_SECONDS = 2.0
#: The same after a try without an answer. In a cluster that elects a leader, what was sent before is not answered.
ANSWER_AGAIN = Backoff(first=0.5, last=2.0, jitter=0.0)
_OVERHEAD = 256
"""Bytes that are reserved for the headers of a batch."""


class Conflict(IntegrityError):
    """Somebody else appended to the aggregate first: load it and decide again. `subject`: its subject."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"another event was appended to {subject} first")
        self.subject = subject


#: nats-server does not answer a message that it could not write.
NOT_STORED = (
    "the log's server is connected, but did not confirm in time that it stored the event: it is overloaded, or its "
    "disk is full; after a full disk nats-server has to be restarted (`nebula up` does that by itself)"
)


class Unavailable(OperationalError):
    """The log did not answer, or could not store, within the timeout. Nothing is known to be lost; try again."""


class TooLarge(DataError):
    """An event is larger than the server accepts. Nothing was stored."""


class TooMany(NotSupportedError):
    """More events than the server stores in one batch. Nothing was stored."""


class NoBatches(NotSupportedError):
    """The stream allows no atomic batches: an earlier version has made it. Nothing was stored."""


class Message(NamedTuple):
    """An event to append. The first one of each subject has the header `EXPECTED`."""

    subject: str
    headers: dict[str, str]
    body: bytes


class Stream:
    """One stream, through one connection. `timeout` (seconds) bounds each call.

    `event_keys`: checks the messages that are read; None for a stream whose messages have no MACs.
    """

    def __init__(self, nc: Client, name: str, *, timeout: float = 5.0, event_keys: EventKeys | None = None) -> None:
        self.name = name
        self._nc = nc
        self._timeout = timeout
        self._event_keys = event_keys

    # ── append ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, messages: Sequence[Message], *, resent: bool = False, grouped: bool = False) -> int:
        """Store all messages at consecutive positions, or none. Returns the position of the last one.

        `grouped`: the messages belong to several appends, which the caller can try one by one.
        `resent`: the same messages were sent before with an unknown outcome; if they are stored already, it succeeds.
        Raises Conflict if a subject has another last position than expected, Unavailable if the outcome is unknown
        within the timeout, TooLarge, TooMany, and NoBatches if there are several.
        """
        self._check_sizes(messages)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        failures = 0
        while True:
            problem: dict[str, Any]
            try:
                reply = await self._send(messages, patience(failures))
                problem = reply.get("error") or ({"err_code": DUPLICATE} if reply.get("duplicate") else {})
            except (NatsError, OSError, TimeoutError) as error:
                resent = True
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
            if grouped and code in CAUSED_BY_GROUP and not resent:
                raise Conflict(messages[0].subject)
            if code in TRANSIENT and loop.time() < deadline:
                await asyncio.sleep(0.02)
                continue
            if code == MESSAGE_TOO_LARGE:
                raise TooLarge(f"stream {self.name} refuses an event: {text}; raise its max_msg_size or store less")
            if code == NO_BATCHES:
                raise NoBatches(f"stream {self.name} allows no atomic batches")
            if code == BATCH_TOO_LARGE:
                raise TooMany(f"{len(messages)} events cannot be stored in one batch ({text}); append fewer at a time")
            if code not in (WRONG_LAST_SEQUENCE, DUPLICATE):
                raise Unavailable(f"the log refuses to store: {text} ({code})")
            stored = await self._find_stored(messages) if resent or code == DUPLICATE else None
            if stored is None:
                raise Conflict(await self._find_conflict(messages))
            return stored

    def _check_sizes(self, messages: Sequence[Message]) -> None:
        """Raises TooLarge for a message over the server's limit: the server would close the connection for good."""
        limit = self._nc.max_payload
        for message in messages:
            headers = message.headers
            size = len(message.body) + len("".join(headers)) + len("".join(headers.values())) + 4 * len(headers)
            size += _OVERHEAD
            if size > limit:
                raise TooLarge(
                    f"an event of {len(message.body)} bytes on {message.subject}, {size} with its headers, is over the "
                    f"server's limit of {limit}: store less in it, or raise max_payload in the server's configuration"
                )

    async def _find_conflict(self, messages: Sequence[Message]) -> str:
        """The subject whose last position is not the expected one. The server does not say which one of a batch."""
        expecting = [m for m in messages if EXPECTED in m.headers]
        if len(expecting) > 1:
            with contextlib.suppress(Unavailable):
                for message in expecting:
                    last = await self.last_of(message.headers.get(EXPECTED_ON, message.subject))
                    if (last.position if last else 0) != int(message.headers[EXPECTED]):
                        return message.subject
        return messages[0].subject

    async def _find_stored(self, messages: Sequence[Message]) -> int | None:
        """The position of the last message if all these messages are stored already, else None.

        They have to be at consecutive positions, because the first one alone may have been stored by another append.
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

    async def _send(self, messages: Sequence[Message], wait: float) -> dict[str, Any]:
        if len(messages) == 1:
            return await self._request(messages[0], messages[0].headers, wait)
        batch = self._nc.new_inbox().rsplit(".", 1)[-1]
        for index, message in enumerate(messages, start=1):
            headers = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(index)}
            if index == len(messages):
                headers["Nats-Batch-Commit"] = "1"  # the answer is for the whole batch, including its errors
                return await self._request(message, headers, wait)
            await self._nc.publish(message.subject, message.body, headers=headers)
        raise AssertionError("a batch has a last message")

    async def _request(self, message: Message, headers: dict[str, str], wait: float) -> dict[str, Any]:
        reply = await self._nc.request(message.subject, message.body, timeout=min(self._timeout, wait), headers=headers)
        return _decoded(reply.data) if reply.data else {}

    # ── read ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, after: int, filter_: str, limit: int | None = None, *, at_least: int = 0) -> list[Recorded]:
        """Up to `limit` events (None: all) after position `after`, in order, whose subject matches the filter.

        `at_least`: a position that is known to have a match. Any replica may answer, also one that lags; the read is
        repeated until this position is included.
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
        """One batched direct get. Returns the events, and whether there are more."""
        return await self._until_answered(lambda wait: self._page(after, filter_, limit, wait))

    async def _page(self, after: int, filter_: str, limit: int, wait: float) -> tuple[list[Recorded], bool]:
        ask = {"seq": after + 1, "next_by_subj": filter_, "batch": limit}
        page, pending = await direct_get(self._nc, self.name, ask, wait, self._event_keys)
        return page, pending > 0 and bool(page)

    async def last(self, filter_: str, *, at_least: int = 0) -> Recorded | None:
        """The newest event whose subject matches the filter; `at_least` as in `read`."""
        patience = _Patience(self._timeout)
        ask = json.dumps({"last_by_subj": filter_}).encode()
        while True:
            msg = await self._ask(f"DIRECT.GET.{self.name}", ask)
            headers = msg.headers or {}
            if is_status(headers) and headers["Status"] != "404":
                raise Unavailable(f"the log refuses to be read: {headers}")
            found = None if is_status(headers) else direct(msg, self._event_keys)
            if (found.position if found else 0) >= at_least:
                return found
            await patience.wait()

    async def last_of(self, subject: str) -> Recorded | None:
        """The newest event of the subject (or filter), read from the stream's leader, which never lags."""
        return await self._from_leader({"last_by_subj": subject})

    async def newest_of(self, subjects: Sequence[str]) -> list[Recorded]:
        """The newest event of each of these subjects that has one, at most 1,024. A replica may answer that lags."""
        ask = {"multi_last": list(subjects), "batch": len(subjects)}
        found, _ = await self._until_answered(lambda wait: direct_get(self._nc, self.name, ask, wait, self._event_keys))
        return found

    async def next_of(self, subject: str, after: int) -> Recorded | None:
        """The first event of the subject after position `after`, read from the stream's leader."""
        return await self._from_leader({"seq": after + 1, "next_by_subj": subject})

    async def last_before(self, subject: str, position: int) -> Recorded | None:
        """The newest event of the subject before a position. A replica may answer that lags."""
        if position <= 1:
            return None
        ask = {"multi_last": [subject], "up_to_seq": position - 1, "batch": 1}
        found, _ = await self._until_answered(lambda wait: direct_get(self._nc, self.name, ask, wait, self._event_keys))
        return found[0] if found else None

    async def _from_leader(self, ask: dict[str, Any]) -> Recorded | None:
        reply = json.loads((await self._ask(f"STREAM.MSG.GET.{self.name}", json.dumps(ask).encode())).data)
        problem = reply.get("error")
        if problem is None:
            return from_api(reply["message"], self._event_keys)
        if problem.get("err_code") == NO_MESSAGE:
            return None
        raise Unavailable(f"the log refuses to be read: {problem.get('description')}")

    async def last_position(self) -> int:
        """The position of the newest event of the whole stream; 0 if it is empty.

        The server's own number may be higher: a failed write on a full disk can leave a position without a message.
        """
        info = json.loads((await self._ask(f"STREAM.INFO.{self.name}", b"")).data)
        if "error" in info:
            raise Unavailable(f"the log does not answer: {info['error'].get('description')}")
        state = info["state"]
        if state["messages"] and state["last_seq"] - state["first_seq"] + 1 == state["messages"]:
            return int(state["last_seq"])
        # Ask for each subject: for `>` the server looks at the last position only, which may have no message.
        newest = [await self.last_of(subject) for subject in info["config"]["subjects"]]
        return max((found.position for found in newest if found is not None), default=0)

    async def _ask(self, call: str, body: bytes) -> Msg:
        subject = api(self._nc, call)
        return await self._until_answered(lambda wait: self._nc.request(subject, body, timeout=wait))

    async def _until_answered(self, ask: Callable[[float], Awaitable[T]]) -> T:
        """Send a read request, and repeat it if it or its answer was lost, for example by a restart of the server."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        failures = 0
        while True:
            try:
                return await ask(min(self._timeout, patience(failures)))
            except (NatsError, OSError, TimeoutError) as error:
                failures += 1
                if loop.time() >= deadline:
                    raise Unavailable(f"the log does not answer: {error!r}") from error
                await asyncio.sleep(0.05)


def patience(failures: int) -> float:
    """Seconds to wait for an answer after so many consecutive tries without one."""
    return min(ANSWER_SECONDS, ANSWER_AGAIN.after(failures)) if failures else ANSWER_SECONDS


class _Patience:
    """Waits for a replica that lags. Raises Unavailable after the timeout."""

    def __init__(self, timeout: float) -> None:
        self._deadline = asyncio.get_running_loop().time() + timeout

    async def wait(self) -> None:
        if asyncio.get_running_loop().time() > self._deadline:
            raise Unavailable("the replica that answers does not have events yet that are known to be stored")
        await asyncio.sleep(0.01)


async def direct_get(
    nc: Client, stream: str, ask: dict[str, Any], wait: float, event_keys: EventKeys | None = None
) -> tuple[list[Recorded], int]:
    """The messages of one batched direct get, and the number of further matches. `wait`: seconds between two messages.

    Raises Unavailable if the server refuses, TimeoutError and nats.errors.Error if it does not answer.
    """
    found: list[Recorded] = []
    async with Inbox(nc) as inbox:
        await nc.publish(api(nc, f"DIRECT.GET.{stream}"), json.dumps(ask).encode(), reply=inbox.subject)
        while True:
            for msg in await inbox.take(wait, PAGE):
                headers = msg.headers or {}
                if not is_status(headers):
                    found.append(direct(msg, event_keys))
                elif headers["Status"] in ("204", "404"):
                    return found, int(headers.get("Nats-Num-Pending", "0"))
                else:
                    raise Unavailable(f"the log refuses to be read: {headers}")
