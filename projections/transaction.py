"""One transaction of the read models: rows and checkpoint change together."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from eventstore.log.envelope import Recorded, Ref
from projections import books, bulk
from projections.books import MODELS, Books, Judged, Models
from projections.database import Connection
from projections.model import Row, Secrets, Session
from runtime import logs

log = logs.get(__name__)

Park = Callable[[Sequence[tuple[Recorded, str]]], Awaitable[None]]
"""Parks messages, with the reasons. Raises Unavailable; then nothing of the batch is committed."""

#: The aggregates of a batch of at least so many messages are kept for the next batch. Of smaller batches, the last
#: RECENT ones are kept.
KEPT, RECENT = 1000, 256


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

    `known`: aggregates as they are at `after`, which need not be read. Returns those to keep for the next batch.

    `park` gets the malformed messages with the reasons, before the transaction is committed: they get a row in the
    audit index, and change nothing else. `inert`: treat all of them in this way. `skipped`: only move the checkpoint.

    A few events use a pipeline, so a reader waits for few round trips to Postgres. Many events use
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
        await fold(conn, folded, messages, many=many, inert=inert)
        await books.write(Session(conn, secrets, many), before, folded)
        await conn.execute("SELECT pg_notify(current_schema() || '_position', %s)", [str(last)])
        await park(folded.malformed)
    return kept(known or {}, folded.rows, len(batch))


async def fold(conn: Connection, folded: Books, messages: Sequence[Judged], *, many: bool, inert: bool) -> None:
    """Apply messages in order. In a large batch, rows that are only added are written meanwhile."""
    adding = next((model for model in folded.models if model.added is not None), None) if many else None
    if adding is None or adding.added is None:
        for recorded, found in messages:
            folded.apply(recorded, found, inert=inert)
        return
    rows = folded.held.setdefault(adding.name, {})
    async with bulk.copying(conn, adding.added.table, adding.added.names) as write:
        for start in range(0, len(messages), bulk.CHUNK):
            for recorded, found in messages[start : start + bulk.CHUNK]:
                folded.apply(recorded, found, inert=inert)
            await write(adding.added.encoded(rows))
            rows.clear()


def kept(known: Mapping[Ref, Row[Any]], rows: Mapping[Ref, Row[Any]], size: int) -> Mapping[Ref, Row[Any]]:
    """The aggregates that need not be read again, the last used ones at the end. `rows`: after a batch of that size."""
    if size >= KEPT:
        return rows
    both = {ref: row for ref, row in known.items() if ref not in rows} | dict(rows)
    return dict(islice(both.items(), max(0, len(both) - RECENT), None))


def ordered(after: int, batch: Sequence[Recorded]) -> int:
    """The position of the last event. Raises OutOfOrder unless positions increase from `after` on; a hole is logged."""
    for recorded in batch:
        if recorded.position <= after:
            raise OutOfOrder(f"position {recorded.position} came after {after}")
        if recorded.position > after + 1:
            log.error("log damaged: positions are missing", after=after, next=recorded.position)
        after = recorded.position
    return after
