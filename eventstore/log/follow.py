"""Follow the log from a position: what is there, then what comes, with no gap and no repeat.

An ephemeral push consumer whose own sequence is checked message by message. Anything odd (a hole, silence past the
heartbeats, a server that restarted) ends the consumer and starts another behind the last event that was handed out.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Unavailable
from eventstore.log.mailbox import Mailbox
from eventstore.log.received import first_stored, own, raw_of
from runtime import logs, subjects
from runtime.tasks import heed_cancellation

log = logs.get(__name__)

HEARTBEAT = 2.0
#: Seconds for which a stream has to be shorter than what was read of it: a leader that was cut off does not know better
#: for about ten.
SURE = 15.0
MOST = 256
FLOW_CONTROL = "$JS.FC."
_FIRST_WAIT = 3.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def follow(
    nc: Client,
    after: int,
    filters: list[str] | None = None,
    *,
    stream: str = subjects.EVENTS,
) -> AsyncGenerator[list[Recorded], None]:
    """Yield lists of at least one event behind position `after`, for ever, in the order of the log.

    Returns only when it is closed. While the server is away it waits, and goes on from where it was. Raises
    OtherStream where that place is not there any more.
    """
    delay, told, again = 0.05, "", False
    short_since: float | None = None
    while True:
        try:
            consumed = _consume(nc, after, filters or [subjects.events()], stream, again=again)
            async with contextlib.aclosing(consumed) as batches:
                async for batch in batches:
                    if batch:
                        after = batch[-1].position
                        yield batch
                    delay, short_since = 0.05, None
        except _Short as error:
            clock = asyncio.get_running_loop().time()
            short_since = clock if short_since is None else short_since
            if clock - short_since >= SURE:
                raise OtherStream(str(error)) from None
        except (NatsError, OSError, TimeoutError, _Interrupted) as error:
            if nc.is_closed:
                return
            if isinstance(error, _Refused) and str(error) != told:
                told = str(error)
                log.warning("the feed is refused; trying on", stream=stream, error=told)
            log.debug("feed interrupted", after=after, error=repr(error))
            again = True
        await asyncio.sleep(delay)
        delay = min(delay * 2, 1.0)


class OtherStream(Unavailable):
    """The stream ends before what was read of it: it was lost, or another one is there. Nothing known of it counts."""


class _Interrupted(Exception):
    """The consumer can no longer be trusted to be complete."""


class _Short(_Interrupted):
    """The stream is said to end before what was read of it."""


class _Refused(_Interrupted):
    """The server answers, and will not: nothing that waiting alone mends."""


async def _same(nc: Client, stream: str, after: int) -> None:
    """Raises _Short where the stream's leader knows of less than what was read.

    A consumer that begins behind the end hears nothing until the stream has come that far, and says so to nobody.
    """
    end = (await nc.jetstream(timeout=_FIRST_WAIT).stream_info(stream)).state.last_seq
    heed_cancellation()
    if end < after:
        raise _Short(f"stream {stream} ends at {end}, and was read up to {after}: it was lost, or made anew")


async def _consume(
    nc: Client, after: int, filters: list[str], stream: str, *, again: bool
) -> AsyncGenerator[list[Recorded], None]:
    async with Mailbox(nc) as mailbox:
        name = mailbox.subject.rsplit(".", 1)[-1]
        try:
            await _create(nc, stream, name, mailbox.subject, after, filters)
            if again:
                await _same(nc, stream, after)
            expected = 1
            while True:
                try:
                    messages = await mailbox.take(HEARTBEAT * 2.5, MOST)
                except TimeoutError as error:
                    raise _Interrupted("no heartbeat") from error
                batch: list[Recorded] = []
                for msg in messages:
                    if msg.subject == mailbox.subject:  # a stored message keeps its own subject
                        expected_now = _last(msg, expected - 1) + 1
                        await _status(nc, msg)
                        if expected_now > expected:
                            raise _Interrupted(f"hole before {expected_now}")
                    else:
                        recorded, sequence = _pushed(msg)
                        if sequence != expected:
                            raise _Interrupted(f"got {sequence}, expected {expected}")
                        expected += 1
                        batch.append(recorded)
                yield batch
        finally:
            with contextlib.suppress(NatsError, OSError):
                await nc.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"")


async def _create(nc: Client, stream: str, name: str, inbox: str, after: int, filters: list[str]) -> None:
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
        config["filter_subjects"] = filters
    reply = await nc.request(
        f"$JS.API.CONSUMER.CREATE.{stream}.{name}",
        json.dumps({"stream_name": stream, "config": config}).encode(),
        timeout=_FIRST_WAIT,
    )
    heed_cancellation()
    answer = json.loads(reply.data)
    if "error" in answer:
        raise _Refused(answer["error"].get("description", "consumer refused"))


def _last(msg: Msg, default: int) -> int:
    """How far the consumer is, where its status says so. Anybody may have sent it."""
    try:
        return int((msg.headers or {}).get("Nats-Last-Consumer", default))
    except ValueError as error:
        raise _Interrupted("a status that makes no sense") from error


def _pushed(msg: Msg) -> tuple[Recorded, int]:
    try:
        return pushed(msg)
    except (ValueError, OverflowError) as error:
        raise _Interrupted("a message that no consumer has pushed") from error


async def _status(nc: Client, msg: Msg) -> None:
    """Answer flow control; a stalled consumer asks through its heartbeat."""
    headers = msg.headers or {}
    asked = headers.get("Nats-Consumer-Stalled") or msg.reply
    if asked.startswith(FLOW_CONTROL):  # the server's own: nothing else is published to because a message says so
        await nc.publish(asked, b"")
    elif asked:
        raise _Interrupted(f"flow control on {asked[:100]}")
    elif headers.get("Status") != "100":
        raise _Interrupted(f"consumer ended: {headers}")


def pushed(msg: Msg) -> tuple[Recorded, int]:
    """An event pushed by a consumer, and its number within that consumer.

    The reply subject says both: `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.
    <nanoseconds>.<pending>`, or the same with `<domain>.<account hash>.` before the stream and more behind.
    """
    parts = msg.reply.split(".")
    first = 5 if len(parts) == 9 else 7
    stream_sequence, consumer_sequence, nanoseconds = parts[first : first + 3]
    headers = msg.headers or {}
    recorded = Recorded(
        position=int(stream_sequence),
        subject=msg.subject,
        headers=own(headers),
        body=msg.data,
        stored_at=first_stored(headers) or _EPOCH + timedelta(microseconds=int(nanoseconds) // 1000),
        raw=raw_of(msg.subject, headers),
    )
    return recorded, int(consumer_sequence)
