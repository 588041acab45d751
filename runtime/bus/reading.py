"""Reads a stream in order, also from an account that may not create consumers.

A consumer delivers to a subject of the streams' account, so whoever may create one could write there. So:

- In the account of the streams: an ordered consumer (`ordered.py`).
- A node reads its wanted documents with a consumer that handlers have created for it, which it can only set back.
- Everybody else reads pages (direct gets). A message on the stream's subjects is a hint that a page may be there
  (`hints.py`).
"""

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg

from runtime import subjects
from runtime.bus import ordered, pulled
from runtime.bus.accounts.claims import covers
from runtime.bus.api import api, imports
from runtime.bus.hints import Hints
from runtime.bus.inbox import Inbox
from runtime.bus.ordered import HEARTBEAT, MOST, Batch, Interrupted, Read
from runtime.tasks.tasks import heed_cancellation

T = TypeVar("T")
#: Seconds to wait for a page, or for more of it. The server that was asked may have just ended.
PAGE_WAIT = 2.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def follow(
    nc: Client, stream: str, after: int, filters: Sequence[str], read: Read[T], *, again: bool = False
) -> AsyncGenerator[list[T], None]:
    """As `ordered.follow`."""
    return ordered.follow(nc, stream, after, filters, read, using=consume, again=again)


def consume(
    nc: Client, stream: str, after: int, filters: Sequence[str], read: Read[T], *, again: bool = False
) -> AsyncGenerator[Batch[T], None]:
    """As `ordered.consume`. With imported streams, filters have the same number of tokens."""
    if not imports(nc):
        return ordered.consume(nc, stream, after, filters, read, again=again)
    if stream == subjects.WANTED:
        (only,) = filters
        return pulled.consume(nc, stream, after, subjects.node_of(only), read)
    if len(filters) == 1:
        return pages(nc, stream, after, filters[0], read, again=again)
    return _chosen(nc, stream, after, filters, read, again=again)


async def _chosen(
    nc: Client, stream: str, after: int, filters: Sequence[str], read: Read[T], *, again: bool
) -> AsyncGenerator[Batch[T], None]:
    """Read with one filter that covers all, because pages of several filters have no common order."""

    def chosen(msg: Msg, position: int, nanoseconds: int) -> list[T]:
        match = any(covers(one, msg.subject) for one in filters)
        return [read(msg, position, nanoseconds)] if match else []

    batches = pages(nc, stream, after, widened(filters), chosen, again=again)
    async with contextlib.aclosing(batches):
        async for batch in batches:
            yield Batch([item for items in batch.items for item in items], batch.position, batch.more)


def widened(filters: Sequence[str]) -> str:
    """A filter that covers all these, which have the same number of tokens."""
    columns = zip(*(one.split(".") for one in filters), strict=True)
    return ".".join(column[0] if len(set(column)) == 1 else "*" for column in columns)


async def pages(
    nc: Client, stream: str, after: int, filter_: str, read: Read[T], *, again: bool
) -> AsyncGenerator[Batch[T], None]:
    """As `ordered.consume`, by direct gets."""
    hints = Hints()
    listening = await nc.subscribe(filter_, cb=hints.note)
    try:
        async with Inbox(nc) as inbox:
            if again:
                await ordered.same(nc, stream, after)

            def found(msg: Msg, position: int, nanoseconds: int) -> T:
                hints.found(msg)
                return read(msg, position, nanoseconds)

            while True:
                more = True
                while more:
                    batch = await page(nc, inbox, stream, after, filter_, found)
                    after, more = batch.position, batch.more
                    if batch.items:
                        yield batch
                if hints.missing():
                    await hints.pause()
                    continue
                yield Batch([], after, more=False)
                if not await hints.wait(HEARTBEAT):
                    await ordered.same(nc, stream, after)
    finally:
        with contextlib.suppress(Exception):  # the connection may be closed
            await listening.unsubscribe()


def asked(stream: str, filter_: str) -> str:
    """The filter to ask the server for. For `>` it reads on; for any other one it also looks through the subjects of
    the whole stream, to count the messages that are left: that takes longer the more resources there are.
    """
    return ">" if (stream, filter_) == (subjects.EVENTS, subjects.events()) else filter_


async def page(nc: Client, inbox: Inbox, stream: str, after: int, filter_: str, read: Read[T]) -> Batch[T]:
    """The next messages, by one direct get. Raises Interrupted, and the errors of an inbox."""
    ask = {"seq": after + 1, "next_by_subj": asked(stream, filter_), "batch": MOST}
    await nc.publish(api(nc, f"DIRECT.GET.{stream}"), json.dumps(ask).encode(), reply=inbox.subject)
    items: list[T] = []
    last = 0
    while True:
        for msg in await inbox.take(PAGE_WAIT, MOST + 1):
            headers = msg.headers or {}
            if "Status" in headers and "Nats-Sequence" not in headers:
                if headers["Status"] not in ("204", "404"):
                    raise Interrupted(f"the stream refuses to be read: {headers}")
                heed_cancellation()
                return Batch(items, after, more=int(headers.get("Nats-Num-Pending", "0")) > 0 and bool(items))
            try:
                position, before = int(headers["Nats-Sequence"]), int(headers["Nats-Last-Sequence"])
                stored = datetime.fromisoformat(headers["Nats-Time-Stamp"]) - _EPOCH
                nanoseconds = (stored.days * 86400 + stored.seconds) * 10**9 + stored.microseconds * 1000
                subject = headers["Nats-Subject"]
            except (KeyError, ValueError) as error:
                raise Interrupted("a message that is not from a stream") from error
            if position <= after or (items and before != last):
                raise Interrupted(f"got {position} after {last}")
            after = last = position
            stored_message = Msg(_client=nc, subject=subject, reply="", data=msg.data, headers=msg.headers)
            items.append(read(stored_message, position, nanoseconds))
