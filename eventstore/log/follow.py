"""Follow the log from a position: the stored events, then new ones, with no gap and no repeat."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from functools import partial

from nats.aio.client import Client
from nats.aio.msg import Msg

from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Unavailable
from eventstore.log.macs import EventKeys
from eventstore.log.received import first_stored, own, raw_of
from runtime import logs, subjects
from runtime.bus import ordered, reading
from runtime.bus.polling import Own

log = logs.get(__name__)

_KEYS_SECONDS = 0.2
"""Seconds between two looks for event keys."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OtherStream(Unavailable):
    """The stream ends before the position that was read: it was lost or replaced. Nothing known of it is valid."""


async def follow(
    nc: Client,
    after: int,
    filters: list[str] | None = None,
    *,
    stream: str = subjects.EVENTS,
    event_keys: EventKeys | None,
    again: bool = False,
    own_events: Own[Recorded] | None = None,
) -> AsyncGenerator[list[Recorded], None]:
    """Yield lists of at least one message after position `after`, in the order of the log, for ever.

    `filters`: None stands for all events. `event_keys`: checks the messages; None for a stream whose messages have no
    MACs. `again`: somebody has read up to `after` before, so a stream that ends earlier is another one. `own_events`:
    those that need not be read, without filters. It ends only when it is closed. While the server does not answer, or
    there are no keys, it waits, and then continues without a gap. Raises OtherStream if the stream ends before the
    position that was read, and ValueError for an empty list of filters: a consumer without any would read all.
    """
    if filters is not None and not filters:
        raise ValueError("a list of filters must name at least one")
    if event_keys is not None:
        await _until_ready(event_keys)
    try:
        batches = reading.follow(
            nc,
            stream,
            after,
            filters or [subjects.events()],
            partial(pushed, event_keys),
            again=again,
            own=own_events,
        )
        async with contextlib.aclosing(batches):
            async for batch in batches:
                yield batch
    except ordered.OtherStream as error:
        raise OtherStream(str(error)) from None


async def _until_ready(event_keys: EventKeys) -> None:
    """Wait until there are event keys. Handlers make them."""
    waits = False
    while True:
        try:
            event_keys.ready()
        except Unavailable as error:
            if not waits:
                log.warning("the log is not read yet", error=str(error))
            waits = True
            await asyncio.sleep(_KEYS_SECONDS)
        else:
            return


def pushed(event_keys: EventKeys | None, msg: Msg, position: int, nanoseconds: int) -> Recorded:
    """A message that a consumer has delivered."""
    headers = msg.headers or {}
    stored_at = first_stored(headers) or _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    raw = raw_of(msg.subject, headers)
    return Recorded(position, msg.subject, own(headers), msg.data, stored_at, raw, False, event_keys)
