"""Reads a stream in order, also from an account that may not create consumers.

A consumer delivers to a subject of the streams' account, so whoever may create one could write there. So:

- In the account of the streams: an ordered consumer (`ordered.py`).
- A node reads its wanted documents with a consumer that handlers have created for it, which it can only set back.
- Everybody else reads pages (direct gets). A message on the stream's subjects is a hint that a page may be there
  (`hints.py`).
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg

from runtime import subjects
from runtime.bus import ordered, polling, pulled
from runtime.bus.accounts.claims import covers
from runtime.bus.api import api, imports
from runtime.bus.hints import Listener
from runtime.bus.inbox import Inbox
from runtime.bus.ordered import HEARTBEAT, MOST, Batch, Interrupted, Read
from runtime.bus.polling import Own, Polling, ignore
from runtime.tasks.tasks import heed_cancellation

T = TypeVar("T")
#: Seconds to wait for a page, or for more of it. The server that was asked may have just ended.
PAGE_WAIT = 2.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def follow(
    nc: Client,
    stream: str,
    after: int,
    filters: Sequence[str],
    read: Read[T],
    *,
    again: bool = False,
    own: Own[T] | None = None,
) -> AsyncGenerator[list[T], None]:
    """As `ordered.follow`. `own`: what need not be read, in the account of the streams; only for all messages."""
    return ordered.follow(nc, stream, after, filters, read, using=partial(consume, own=own), again=again)


def consume(
    nc: Client,
    stream: str,
    after: int,
    filters: Sequence[str],
    read: Read[T],
    *,
    again: bool = False,
    own: Own[T] | None = None,
) -> AsyncGenerator[Batch[T], None]:
    """As `ordered.consume`. With imported streams, filters have the same number of tokens. `own`: as in `follow`."""
    if not imports(nc):
        if own is not None:
            return _beside(own, nc, stream, after, filters, read, again=again)
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
    nc: Client,
    stream: str,
    after: int,
    filter_: str,
    read: Read[T],
    *,
    again: bool,
) -> AsyncGenerator[Batch[T], None]:
    """As `ordered.consume`, by direct gets."""
    async with Listener(nc, filter_) as listener, Inbox(nc) as inbox:
        if again:
            await ordered.same(nc, stream, after)

        def found(msg: Msg, position: int, nanoseconds: int) -> T:
            listener.hints.found(msg)
            return read(msg, position, nanoseconds)

        while True:
            count, more = 0, True
            while more:
                batch = await page(nc, inbox, stream, after, filter_, found)
                after, more, count = batch.position, batch.more, count + len(batch.items)
                if batch.items:
                    yield batch
            if not listener.hints.missing():
                yield Batch([], after, more=False)
            if not await listener.wait(count, HEARTBEAT):
                await ordered.same(nc, stream, after)


async def _beside(
    own: Own[T], nc: Client, stream: str, after: int, filters: Sequence[str], read: Read[T], *, again: bool
) -> AsyncGenerator[Batch[T], None]:
    """As `ordered.consume`. While many messages come, nearly all of which this process stores itself, it has no
    consumer, and reads only what others store.
    """
    pace = Polling()
    own.on_wait = pace.hurry
    try:
        while True:
            async with contextlib.aclosing(ordered.consume(nc, stream, after, filters, read, again=again)) as batches:
                async for batch in batches:
                    after, others = batch.position, own.others
                    yield batch
                    if batch.more or own.others > others:  # each message that others store is needed soon
                        pace.end()
                    elif pace.begins(len(batch.items)):
                        break
            again = False
            async with contextlib.aclosing(_looks(pace, own, nc, stream, after, read)) as looks:
                async for batch in looks:
                    after = batch.position
                    yield batch
    finally:
        own.on_wait = ignore


async def _looks(
    pace: Polling, own: Own[T], nc: Client, stream: str, after: int, read: Read[T]
) -> AsyncGenerator[Batch[T], None]:
    """As `_beside`, until few messages come, or many that others store."""
    clock = asyncio.get_running_loop().time
    looked, alone = clock(), False
    async with Inbox(nc) as inbox:
        others = own.others
        while pace.calm < polling.CALM and own.others < others + polling.FEW:
            await pace.rest()
            mine = own.following(after)
            if mine:
                after += len(mine)
                yield Batch([*mine], after, more=False)
            others, count = own.others, len(mine)
            more = own.lacks(after) or not alone or clock() - looked >= polling.SELDOM
            while more:
                batch = await page(nc, inbox, stream, after, ">", read)
                looked, after, more, count = clock(), batch.position, batch.more, count + len(batch.items)
                if batch.items:
                    yield batch
                alone = own.others == others
            pace.note(count)
    pace.end()


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
