"""One transaction of the read models: rows and checkpoint change together."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from eventstore.log.envelope import Recorded, Ref
from projections import books, bulk
from projections.books import MODELS, Judged, Models
from projections.database import Connection
from projections.model import Row, Secrets, Session
from runtime import logs

log = logs.get(__name__)

Park = Callable[[Sequence[tuple[Recorded, str]]], Awaitable[None]]
"""Parks messages, with the reasons. Raises Unavailable; then nothing of the batch is committed."""

#: The aggregates of a batch of at least so many messages are kept for the next batch.
KEPT = 1000


class Overtaken(Exception):
    """Another runner moved the checkpoint."""


class OutOfOrder(Exception):
    """The log was delivered in the wrong order."""


async def apply(
    conn: Connection,
    secrets: Secrets,
    after: int,
    batch: Sequence[Judged],
    models: Models = MODELS,
    *,
    park: Park,
    known: Mapping[Ref, Row[Any]] | None = None,
    inert: bool = False,
    skipped: bool = False,
) -> Mapping[Ref, Row[Any]]:
    """Apply the messages after position `after` and move the checkpoint, in one transaction.

    `known`: aggregates as they are at `after`, which need not be read. Returns those of this batch, if it is large.

    `park` gets the malformed messages with the reasons, before the transaction is committed: they get a row in the
    audit index, and change nothing else. `inert`: treat all of them in this way. `skipped`: only move the checkpoint.

    A few events use a pipeline, so a reader waits for five round trips to Postgres instead of thirteen. Many events use
    COPY, which cannot be part of a pipeline. Raises Overtaken if the checkpoint is not at `after`.
    """
    last = ordered(after, [recorded for recorded, _ in batch])
    messages = [] if skipped else batch
    many = len(batch) >= bulk.COPIED
    async with contextlib.nullcontext() if many else conn.pipeline(), conn.transaction():
        move = "UPDATE checkpoint SET position = %s, updated_at = now() WHERE position = %s RETURNING position"
        moved = await conn.execute(move, [last, after])
        before = await books.read(conn, models, messages, known or {})
        if await moved.fetchone() is None:
            raise Overtaken(f"the checkpoint is no longer at {after}")
        folded = before.copy()
        for recorded, found in messages:
            folded.apply(recorded, found, inert=inert)
        await books.write(Session(conn, secrets, many), before, folded)
        await conn.execute("SELECT pg_notify(current_schema() || '_position', %s)", [str(last)])
        await park(folded.malformed)
    return folded.rows if len(batch) >= KEPT else {}


def ordered(after: int, batch: Sequence[Recorded]) -> int:
    """The position of the last event. Raises OutOfOrder unless positions increase from `after` on; a hole is logged."""
    for recorded in batch:
        if recorded.position <= after:
            raise OutOfOrder(f"position {recorded.position} came after {after}")
        if recorded.position > after + 1:
            log.error("log damaged: positions are missing", after=after, next=recorded.position)
        after = recorded.position
    return after
