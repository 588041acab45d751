"""Append to the log, load one aggregate, read a range.

Every append names what it expects the aggregate's last position to be; the server compares and stores in one step.
An unknown outcome (time-out, lost connection) is made known before anything is reported: the same publish is sent
again until the server either stores it or refuses it, and a refusal is checked against what stands there.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from eventsourcing.persistence import IntegrityError, OperationalError
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from domain.base import Event
from eventstore.envelope import GENESIS, Context, Recorded, Ref, seal
from runtime import subjects

S = TypeVar("S")

WRONG_LAST_SEQUENCE = 10071
BATCH_DUPLICATE = 10201
PAGE = 512


class Conflict(IntegrityError):
    """Somebody else appended to the aggregate first: load it and decide again. `subject` names it."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"{subject} has moved on")
        self.subject = subject


class Unavailable(OperationalError):
    """The log cannot be reached, or cannot store, within the time given. Nothing is known to be lost; try again."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of one aggregate's history: version and position of its last event (0 when it has none)."""

    ref: Ref
    version: int = 0
    position: int = 0
    digest: str = GENESIS

    def after(self, recorded: Recorded) -> "Tip":
        return Tip(self.ref, recorded.version, recorded.position, recorded.digest)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """An aggregate's state and the tip that an append has to build on."""

    state: S | None
    tip: Tip


@dataclass(frozen=True, slots=True)
class Change:
    """Events to append to one aggregate, in order, on top of a tip."""

    tip: Tip
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class _Message:
    subject: str
    headers: dict[str, str]
    body: bytes


class EventStore:
    """The log of one cloud, through one connection."""

    def __init__(self, nc: Client, *, stream: str = subjects.EVENTS, timeout: float = 5.0) -> None:
        self._nc = nc
        self._stream = stream
        self._direct = f"$JS.API.DIRECT.GET.{stream}"
        self._timeout = timeout

    # ── append ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, changes: Sequence[Change], context: Context) -> list[Recorded]:
        """Append all events of all changes, or none; return them as they stand in the log.

        One event is one publish; several go as one atomic batch. Raises Conflict when any of the aggregates has
        moved on, Unavailable when the outcome could not be learned in time.
        """
        messages: list[_Message] = []
        for change in changes:
            version, previous = change.tip.version, change.tip.digest
            subject = change.tip.ref.subject
            for index, event in enumerate(change.events):
                version += 1
                headers, body = seal(change.tip.ref, version, previous, event, context)
                made = Recorded(0, subject, dict(headers), body, datetime.now(UTC))
                previous = made.digest
                headers["Nats-Msg-Id"] = headers["ce-id"]
                headers["Nats-Expected-Stream"] = self._stream
                if index == 0:
                    headers["Nats-Expected-Last-Subject-Sequence"] = str(change.tip.position)
                messages.append(_Message(subject, headers, body))
        if not messages:
            return []
        send = self._send_one if len(messages) == 1 else self._send_batch
        last = await self._settle(messages, send)
        first = last - len(messages) + 1
        now = datetime.now(UTC)
        return [Recorded(first + i, m.subject, _own(m.headers), m.body, now) for i, m in enumerate(messages)]

    async def _settle(self, messages: list[_Message], send: Callable[[list[_Message]], Any]) -> int:
        """Send until the outcome is known. Returns the position of the last message."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        delay = 0.05
        unsure = False
        while True:
            try:
                reply = await send(messages)
            except (NatsError, OSError, TimeoutError) as error:
                unsure = True
                if loop.time() + delay > deadline:
                    raise Unavailable(f"the log does not answer: {error!r}") from error
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)
                continue
            problem = reply.get("error")
            if problem is None:
                return int(reply["seq"])
            code = problem.get("err_code")
            if code not in (WRONG_LAST_SEQUENCE, BATCH_DUPLICATE):
                raise Unavailable(f"the log refuses to store: {problem.get('description')} ({code})")
            landed = await self._landed(messages) if unsure or code == BATCH_DUPLICATE else None
            if landed is None:
                raise Conflict(messages[0].subject)
            return landed

    async def _landed(self, messages: list[_Message]) -> int | None:
        """The position of the last message when these very messages stand in the log already, else None."""
        last = messages[-1]
        for recorded in await self.history(_ref(last.subject)):
            if recorded.id == last.headers["ce-id"]:
                same = recorded.body == last.body and dict(recorded.headers) == _own(last.headers)
                return recorded.position if same else None
        return None

    async def _send_one(self, messages: list[_Message]) -> dict[str, Any]:
        message = messages[0]
        return await self._request(message, message.headers)

    async def _send_batch(self, messages: list[_Message]) -> dict[str, Any]:
        batch = self._nc.new_inbox().rsplit(".", 1)[-1]
        final = len(messages)
        for index, message in enumerate(messages, start=1):
            headers = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(index)}
            if index == final:
                headers["Nats-Batch-Commit"] = "1"
                return await self._request(message, headers)
            if index == 1:
                reply = await self._request(message, headers)
                if "error" in reply:
                    return reply
            else:
                await self._nc.publish(message.subject, message.body, headers=headers)
        raise AssertionError("a batch has a last message")

    async def _request(self, message: _Message, headers: dict[str, str]) -> dict[str, Any]:
        reply = await self._nc.request(message.subject, message.body, timeout=2.0, headers=headers)
        return json.loads(reply.data) if reply.data else {}

    # ── read ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def history(self, ref: Ref, *, until: int | None = None) -> list[Recorded]:
        """All events of one aggregate in order, up to and including position `until` where given."""
        events: list[Recorded] = []
        after = 0
        while True:
            page, more = await self._page(after, ref.subject, PAGE)
            for recorded in page:
                if until is not None and recorded.position > until:
                    return events
                events.append(recorded)
            if not more:
                return events
            after = page[-1].position

    async def load(self, ref: Ref, evolve: Callable[[S | None, Event], S | None]) -> Loaded[S]:
        """Fold one aggregate. Raises Unavailable when the log does not answer."""
        state: S | None = None
        tip = Tip(ref)
        for recorded in await self.history(ref):
            state = evolve(state, recorded.event)
            tip = tip.after(recorded)
        return Loaded(state, tip)

    async def read(self, after: int, filter_: str | None = None, limit: int = PAGE) -> list[Recorded]:
        """Up to `limit` events behind position `after`, in order, whose subject matches the filter."""
        page, _ = await self._page(after, filter_ or subjects.events(), limit)
        return page

    async def last_position(self) -> int:
        """The position of the newest event of the whole log (0 when it is empty)."""
        try:
            reply = await self._nc.request(f"$JS.API.STREAM.INFO.{self._stream}", b"", timeout=self._timeout)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the log does not answer: {error!r}") from error
        info = json.loads(reply.data)
        if "error" in info:
            raise Unavailable(f"the log does not answer: {info['error'].get('description')}")
        return int(info["state"]["last_seq"])

    async def _page(self, after: int, filter_: str, limit: int) -> tuple[list[Recorded], bool]:
        """One batched direct get: the events, and whether there are more."""
        inbox = self._nc.new_inbox()
        ask = json.dumps({"seq": after + 1, "next_by_subj": filter_, "batch": limit}).encode()
        page: list[Recorded] = []
        try:
            sub = await self._nc.subscribe(inbox)
            try:
                await self._nc.publish(self._direct, ask, reply=inbox)
                while True:
                    msg = await sub.next_msg(timeout=self._timeout)
                    status = (msg.headers or {}).get("Status")
                    if status in ("204", "404"):
                        pending = int((msg.headers or {}).get("Nats-Num-Pending", "0"))
                        return page, pending > 0 and bool(page)
                    if status is not None:
                        raise Unavailable(f"the log refuses to be read: {msg.headers}")
                    page.append(direct(msg))
            finally:
                await sub.unsubscribe()
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the log does not answer: {error!r}") from error


def direct(msg: Msg) -> Recorded:
    """An event from the answer to a direct get."""
    headers = msg.headers or {}
    return Recorded(
        position=int(headers["Nats-Sequence"]),
        subject=headers["Nats-Subject"],
        headers=_own(headers),
        body=msg.data,
        stored_at=datetime.fromisoformat(_microseconds(headers["Nats-Time-Stamp"])),
    )


def _own(headers: dict[str, str]) -> dict[str, str]:
    """The headers that are the event's own: none of the server's."""
    return {k: v for k, v in headers.items() if not k.startswith("Nats-")}


def _microseconds(text: str) -> str:
    """RFC 3339 with up to nanoseconds, cut to what Python reads."""
    head, _, rest = text.rstrip("Z").partition(".")
    return f"{head}.{rest[:6]:0<6}+00:00"


def _ref(subject: str) -> Ref:
    return Ref(*subjects.parse_event(subject))
