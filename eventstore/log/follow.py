"""Follow the log from a position: the stored events, then new ones, with no gap and no repeat."""

import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

from nats.aio.client import Client
from nats.aio.msg import Msg

from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Unavailable
from eventstore.log.received import first_stored, own, raw_of
from runtime import subjects
from runtime.bus import ordered, reading

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OtherStream(Unavailable):
    """The stream ends before the position that was read: it was lost or replaced. Nothing known of it is valid."""


async def follow(
    nc: Client,
    after: int,
    filters: list[str] | None = None,
    *,
    stream: str = subjects.EVENTS,
) -> AsyncGenerator[list[Recorded], None]:
    """Yield lists of at least one message after position `after`, in the order of the log, for ever.

    It ends only when it is closed. While the server does not answer it waits, and then continues without a gap. Raises
    OtherStream if the stream ends before the position that was read.
    """
    try:
        batches = reading.follow(nc, stream, after, filters or [subjects.events()], pushed)
        async with contextlib.aclosing(batches):
            async for batch in batches:
                yield batch
    except ordered.OtherStream as error:
        raise OtherStream(str(error)) from None


def pushed(msg: Msg, position: int, nanoseconds: int) -> Recorded:
    """A message that a consumer has delivered."""
    headers = msg.headers or {}
    return Recorded(
        position=position,
        subject=msg.subject,
        headers=own(headers),
        body=msg.data,
        stored_at=first_stored(headers) or _EPOCH + timedelta(microseconds=nanoseconds // 1000),
        raw=raw_of(msg.subject, headers),
    )
