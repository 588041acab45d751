"""Reads a stream in order: the stored messages, then new ones, without gaps and without repeats.

It uses an ordered consumer: an ephemeral push consumer whose sequence is checked with each message. Any irregularity (a
gap, missing heartbeats, a restarted server) ends it, and another one is started after the last message that was
returned. nats-py has an ordered consumer too, which has a third of the speed.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError, StaleConnectionError

from runtime import logs
from runtime.bus.api import api
from runtime.bus.inbox import Inbox
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import heed_cancellation

log = logs.get(__name__)

T = TypeVar("T")
#: Makes an item from a message, its position in the stream, and the time when it was stored in nanoseconds since 1970.
Read = Callable[[Msg, int, int], T]

HEARTBEAT = 2.0
#: Seconds for which a stream has to end before the position that was read, until it counts as another stream. A leader
#: that was disconnected from the others may report an old end for about ten seconds.
SURE = 15.0
#: Maximum number of messages in one batch.
MOST = 256
RETRY = Backoff(first=0.05, last=1.0)
_FIRST_WAIT = 3.0
#: Seconds to wait for the end of a stream. While no server leads it, nobody answers; so a new leader is found soon.
_END_WAIT = 1.0
_FLOW_CONTROL = "$JS.FC."


class Batch(NamedTuple, Generic[T]):
    items: list[T]
    position: int
    """that of the last item"""
    more: bool
    """whether the stream had more messages when the last item was sent"""


class Consume(Protocol[T]):
    """As the function `consume`."""

    def __call__(
        self, nc: Client, stream: str, after: int, filters: Sequence[str], read: Read[T], *, again: bool = False
    ) -> AsyncGenerator[Batch[T], None]: ...


class OtherStream(Exception):
    """The stream ends before the position that was read: it was lost or replaced. Nothing known of it is valid."""


class Interrupted(Exception):
    """The consumer may have missed messages."""


class _Short(Interrupted):
    """The server reports that the stream ends before the position that was read."""


class _Refused(Interrupted):
    """The server refuses the consumer. Waiting alone does not help."""


async def follow(
    nc: Client,
    stream: str,
    after: int,
    filters: Sequence[str],
    read: Read[T],
    *,
    using: Consume[T] | None = None,
    again: bool = False,
) -> AsyncGenerator[list[T], None]:
    """Yield lists of at least one item after position `after`, in the order of the stream, for ever.

    It ends only when it is closed. While the server does not answer it waits, and then continues without a gap. Raises
    OtherStream if the stream ends before the position that was read. `using`: how it reads, `consume` by default.
    `again`: the stream was read up to `after` before.
    """
    reader: Consume[T] = using or consume
    failures, last_refusal = 0, ""
    short_since: float | None = None
    while True:
        try:
            async with contextlib.aclosing(reader(nc, stream, after, filters, read, again=again)) as batches:
                async for batch in batches:
                    if batch.items:
                        after = batch.position
                        yield batch.items
                    failures, short_since = 0, None
        except _Short as error:
            clock = asyncio.get_running_loop().time()
            short_since = clock if short_since is None else short_since
            if clock - short_since >= SURE:
                raise OtherStream(str(error)) from None
            again = True  # the next reader looks at the end before it says that there are no more messages
        except (NatsError, OSError, TimeoutError, Interrupted) as error:
            if nc.is_closed:
                return
            if isinstance(error, _Refused) and str(error) != last_refusal:
                last_refusal = str(error)
                log.warning("the server refuses a consumer; it will be tried again", stream=stream, error=last_refusal)
            log.debug("consumer interrupted", after=after, error=repr(error))
            again = True
        failures += 1
        await asyncio.sleep(RETRY.after(failures))


async def consume(
    nc: Client, stream: str, after: int, filters: Sequence[str], read: Read[T], *, again: bool = False
) -> AsyncGenerator[Batch[T], None]:
    """Read with one consumer. A batch without items means that the stream has no more messages at the moment.

    `again`: check first that the stream does not end before `after`. Raises Interrupted, nats.errors.Error, OSError and
    TimeoutError; then start the next consumer after the last position.
    """
    async with Inbox(nc) as inbox:
        name = inbox.subject.rsplit(".", 1)[-1]
        try:
            waiting = await _create(nc, stream, name, inbox.subject, after, filters)
            if again:
                await same(nc, stream, after)
            if not waiting:
                yield Batch([], after, more=False)
            expected = 1
            while True:
                try:
                    taken = await inbox.take(HEARTBEAT * 2.5, MOST)
                except TimeoutError as error:
                    raise Interrupted("no heartbeat") from error
                except StaleConnectionError as error:
                    raise Interrupted("the connection was replaced") from error
                items: list[T] = []
                pushed, idle = "", False
                for msg in taken:
                    if msg.subject == inbox.subject:  # a stored message keeps its own subject
                        expected_now = _last(msg, expected - 1) + 1
                        idle = await _status(nc, msg)
                        if expected_now > expected:
                            raise Interrupted(f"a gap before {expected_now}")
                        continue
                    try:
                        after, sequence, nanoseconds = delivered(msg.reply)
                        items.append(read(msg, after, nanoseconds))
                    except (ValueError, OverflowError) as error:
                        raise Interrupted("a message that is not from a consumer") from error
                    if sequence != expected:
                        raise Interrupted(f"got {sequence}, expected {expected}")
                    expected += 1
                    pushed, idle = msg.reply, False
                if items:
                    yield Batch(items, after, more_wait(pushed))
                if idle:
                    yield Batch([], after, more=False)
        finally:
            with contextlib.suppress(NatsError, OSError):
                await nc.publish(api(nc, f"CONSUMER.DELETE.{stream}.{name}"), b"")


async def same(nc: Client, stream: str, after: int) -> None:
    """Raises _Short if the stream's leader knows fewer messages than were read.

    A consumer that starts after the end of a stream gets no messages and no error.
    """
    end = (await nc.jetstream(timeout=_END_WAIT).stream_info(stream)).state.last_seq
    heed_cancellation()
    if end < after:
        raise _Short(f"stream {stream} ends at {end}, and was read up to {after}: it was lost or replaced")


async def _create(nc: Client, stream: str, name: str, inbox: str, after: int, filters: Sequence[str]) -> int:
    """Create the consumer. Returns the number of messages that wait for it."""
    config = {
        "name": name,
        "deliver_subject": inbox,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "ack_policy": "none",
        "replay_policy": "instant",
        "flow_control": True,
        "idle_heartbeat": int(HEARTBEAT * 1e9),
        "inactive_threshold": int(30e9),
        "mem_storage": True,
        "num_replicas": 1,
        "max_deliver": 1,
    }
    if len(filters) == 1:
        config["filter_subject"] = filters[0]
    else:
        config["filter_subjects"] = list(filters)
    reply = await nc.request(
        api(nc, f"CONSUMER.CREATE.{stream}.{name}"),
        json.dumps({"stream_name": stream, "config": config}).encode(),
        timeout=_FIRST_WAIT,
    )
    heed_cancellation()
    answer = json.loads(reply.data)
    if "error" in answer:
        raise _Refused(answer["error"].get("description", "consumer refused"))
    return int(answer.get("num_pending", 0)) + int(answer.get("delivered", {}).get("consumer_seq", 0))


def _last(msg: Msg, default: int) -> int:
    """The consumer's last sequence in a status message, which anybody may have sent. Raises Interrupted."""
    try:
        return int((msg.headers or {}).get("Nats-Last-Consumer", default))
    except ValueError as error:
        raise Interrupted("a malformed status message") from error


async def _status(nc: Client, msg: Msg) -> bool:
    """Answer flow control; a stalled consumer requests it in its heartbeat. Returns whether the consumer is idle."""
    headers = msg.headers or {}
    flow_control = headers.get("Nats-Consumer-Stalled") or msg.reply
    if flow_control.startswith(_FLOW_CONTROL):  # answer only on the server's own subjects, whatever a message names
        await nc.publish(flow_control, b"")
    elif flow_control:
        raise Interrupted(f"flow control on {flow_control[:100]}")
    elif headers.get("Status") != "100":
        raise Interrupted(f"consumer ended: {headers}")
    return not flow_control


def delivered(reply: str) -> tuple[int, int, int]:
    """The data in the reply subject of a delivered message: its position in the stream, its sequence within the
    consumer, and the time when it was stored in nanoseconds since 1970. Raises ValueError.

    The subject is `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer
    sequence>.<nanoseconds>.<pending>`; or the same with `<domain>.<account hash>.` before the stream, and further
    tokens at the end.
    """
    parts = reply.split(".")
    first = 5 if len(parts) == 9 else 7
    position, sequence, nanoseconds = parts[first : first + 3]
    return int(position), int(sequence), int(nanoseconds)


def more_wait(reply: str) -> bool:
    """Whether more messages waited when this one was delivered."""
    parts = reply.split(".")
    return parts[8 if len(parts) == 9 else 10 :][:1] != ["0"]
