"""Read a stream in its order: what is there, then what comes, with no gap and no repeat.

An ordered consumer: an ephemeral push consumer whose own sequence is checked message by message. Anything odd (a hole,
silence past the heartbeats, a server that restarted) ends it, and its reader starts another behind the last message
that was handed out. nats-py has one as well, a third as fast.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError, StaleConnectionError

from runtime import logs
from runtime.bus.inbox import Inbox
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import heed_cancellation

log = logs.get(__name__)

T = TypeVar("T")
#: Makes an item of a message, its position in the stream, and the nanoseconds from 1970 on at which it was stored.
Read = Callable[[Msg, int, int], T]

HEARTBEAT = 2.0
#: Seconds for which a stream has to be shorter than what was read of it: a leader that was cut off does not know better
#: for about ten.
SURE = 15.0
#: Messages handed out at once, at the most.
MOST = 256
RETRY = Backoff(first=0.05, last=1.0)
_FIRST_WAIT = 3.0
_FLOW_CONTROL = "$JS.FC."


class Batch(NamedTuple, Generic[T]):
    items: list[T]
    position: int
    """that of the last item"""
    more: bool
    """whether the stream held more when the last item was sent"""


class OtherStream(Exception):
    """The stream ends before what was read of it: it was lost, or another one is there. Nothing known of it counts."""


class Interrupted(Exception):
    """The consumer can no longer be trusted to be complete."""


class _Short(Interrupted):
    """The stream is said to end before what was read of it."""


class _Refused(Interrupted):
    """The server answers, and will not: nothing that waiting alone mends."""


async def followed(
    nc: Client, stream: str, after: int, filters: Sequence[str], read: Read[T]
) -> AsyncGenerator[list[T], None]:
    """Yield lists of at least one item behind position `after`, for ever, in the stream's order.

    Returns only when it is closed. While the server is away it waits, and goes on from where it was. Raises
    OtherStream where that place is not there any more.
    """
    failures, told, again = 0, "", False
    short_since: float | None = None
    while True:
        try:
            async with contextlib.aclosing(consumed(nc, stream, after, filters, read, again=again)) as batches:
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
        except (NatsError, OSError, TimeoutError, Interrupted) as error:
            if nc.is_closed:
                return
            if isinstance(error, _Refused) and str(error) != told:
                told = str(error)
                log.warning("the feed is refused; trying on", stream=stream, error=told)
            log.debug("feed interrupted", after=after, error=repr(error))
            again = True
        failures += 1
        await asyncio.sleep(RETRY.after(failures))


async def consumed(
    nc: Client, stream: str, after: int, filters: Sequence[str], read: Read[T], *, again: bool = False
) -> AsyncGenerator[Batch[T], None]:
    """One consumer's life. A batch without items says that the stream has no more at the moment.

    `again`: ask first whether the stream is as long as what
    was read of it. Raises Interrupted, nats.errors.Error, OSError and TimeoutError: the next consumer begins behind the
    last position.
    """
    async with Inbox(nc) as inbox:
        name = inbox.subject.rsplit(".", 1)[-1]
        try:
            waiting = await _create(nc, stream, name, inbox.subject, after, filters)
            if again:
                await _same(nc, stream, after)
            if not waiting:
                yield Batch([], after, more=False)
            expected = 1
            while True:
                try:
                    taken = await inbox.take(HEARTBEAT * 2.5, MOST)
                except TimeoutError as error:
                    raise Interrupted("no heartbeat") from error
                except StaleConnectionError as error:
                    raise Interrupted("the connection is another one") from error
                items: list[T] = []
                pushed, idle = "", False
                for msg in taken:
                    if msg.subject == inbox.subject:  # a stored message keeps its own subject
                        expected_now = _last(msg, expected - 1) + 1
                        idle = await _status(nc, msg)
                        if expected_now > expected:
                            raise Interrupted(f"hole before {expected_now}")
                        continue
                    try:
                        after, sequence, nanoseconds = delivered(msg.reply)
                        items.append(read(msg, after, nanoseconds))
                    except (ValueError, OverflowError) as error:
                        raise Interrupted("a message that no consumer has pushed") from error
                    if sequence != expected:
                        raise Interrupted(f"got {sequence}, expected {expected}")
                    expected += 1
                    pushed, idle = msg.reply, False
                if items:
                    yield Batch(items, after, _more(pushed))
                if idle:
                    yield Batch([], after, more=False)
        finally:
            with contextlib.suppress(NatsError, OSError):
                await nc.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"")


async def _same(nc: Client, stream: str, after: int) -> None:
    """Raises _Short where the stream's leader knows of less than what was read.

    A consumer that begins behind the end hears nothing until the stream has come that far, and says so to nobody.
    """
    end = (await nc.jetstream(timeout=_FIRST_WAIT).stream_info(stream)).state.last_seq
    heed_cancellation()
    if end < after:
        raise _Short(f"stream {stream} ends at {end}, and was read up to {after}: it was lost, or made anew")


async def _create(nc: Client, stream: str, name: str, inbox: str, after: int, filters: Sequence[str]) -> int:
    """How many messages wait for the new consumer."""
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
        f"$JS.API.CONSUMER.CREATE.{stream}.{name}",
        json.dumps({"stream_name": stream, "config": config}).encode(),
        timeout=_FIRST_WAIT,
    )
    heed_cancellation()
    answer = json.loads(reply.data)
    if "error" in answer:
        raise _Refused(answer["error"].get("description", "consumer refused"))
    return int(answer.get("num_pending", 0)) + int(answer.get("delivered", {}).get("consumer_seq", 0))


def _last(msg: Msg, default: int) -> int:
    """How far the consumer is, where its status says so. Anybody may have sent it."""
    try:
        return int((msg.headers or {}).get("Nats-Last-Consumer", default))
    except ValueError as error:
        raise Interrupted("a status that makes no sense") from error


async def _status(nc: Client, msg: Msg) -> bool:
    """Answer flow control; a stalled consumer asks through its heartbeat. Whether the consumer has nothing to send."""
    headers = msg.headers or {}
    asked = headers.get("Nats-Consumer-Stalled") or msg.reply
    if asked.startswith(_FLOW_CONTROL):  # the server's own: nothing else is published to because a message says so
        await nc.publish(asked, b"")
    elif asked:
        raise Interrupted(f"flow control on {asked[:100]}")
    elif headers.get("Status") != "100":
        raise Interrupted(f"consumer ended: {headers}")
    return not asked


def delivered(reply: str) -> tuple[int, int, int]:
    """What the reply subject says of a message that a consumer pushed: its position in the stream, its number within
    the consumer, and the nanoseconds from 1970 on at which it was stored. Raises ValueError.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<nanoseconds>.<pending>`, or the
    same with `<domain>.<account hash>.` before the stream and more behind.
    """
    parts = reply.split(".")
    first = 5 if len(parts) == 9 else 7
    position, sequence, nanoseconds = parts[first : first + 3]
    return int(position), int(sequence), int(nanoseconds)


def _more(reply: str) -> bool:
    """Whether more was waiting when this message was pushed."""
    parts = reply.split(".")
    return parts[8 if len(parts) == 9 else 10 :][:1] != ["0"]
