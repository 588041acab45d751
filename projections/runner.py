"""Follows the log and keeps the read models: every event once, in order, rows and checkpoint in one transaction.

- The checkpoint stands in the same database as the rows, so a crash at any point repeats or loses nothing.
- One runner works at a time; others stand by, and the checkpoint is compared as it is moved. One that was changed by
  hand is put right from the rows first (`reached.py`).
- A malformed message (`eventstore/log/judge.py`) is audited and parked, and changes nothing else. An event that cannot
  be applied keeps its place in its aggregate's history and is parked as well. Neither stops the rest.
- When Postgres or the bus is away the runner says so once, waits, and goes on from the checkpoint.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import psycopg
from nats.aio.client import Client
from nats.errors import Error as NatsError
from psycopg import errors

from eventstore.log.envelope import Recorded
from eventstore.log.follow import follow
from eventstore.log.judge import first_line
from eventstore.log.store import EventStore, Unavailable
from eventstore.parking.parking import Parking
from eventstore.vault.vault import VaultUnavailable
from projections import books, database, reached, upgrade
from projections.books import MODELS, Models
from projections.database import Connection
from projections.model import COPIED, Secrets, Session
from projections.position import Position
from runtime import logs
from runtime.tasks.backoff import Backoff

log = logs.get(__name__)

RETRY = Backoff(first=0.1, last=5.0)


class Overtaken(Exception):
    """Another runner moved the checkpoint."""


class OtherLog(Exception):
    """The read models reflect more than the log holds: they were made from another log."""


class OutOfOrder(Exception):
    """The log was handed out in the wrong order."""


#: What passes when the other side comes back. Everything else is the event's fault, or a bug.
PASSING = (
    psycopg.OperationalError,
    errors.UndefinedTable,
    errors.InvalidSchemaName,
    errors.ReadOnlySqlTransaction,
    NatsError,
    OSError,
    Unavailable,
    VaultUnavailable,
    Overtaken,
    OtherLog,
    OutOfOrder,
    upgrade.Newer,
)


#: From so many events in a batch on, the next one is given at least so many seconds to grow.
MANY, LINGER = 8, 0.05
#: While the read models are no more than FRESH seconds behind, they give way to what writes: for each second of work,
#: REST seconds of rest. From there on they rest less and less, and not at all once they are LATE seconds behind: who
#: waits for what it has just written waits for five.
FRESH, LATE, REST = 2.0, 4.0, 8.0


def pause(batch: Sequence[Recorded], spent: float, now: datetime) -> float:
    """Seconds to rest after a batch that took `spent` seconds.

    While little happens: none. While much happens, commands need the processor more than reads do, and fewer and larger
    transactions do more. Far behind (a long log to replay, or a flood): none.
    """
    behind = (now - batch[-1].stored_at).total_seconds()
    if len(batch) < MANY or behind >= LATE:
        return 0.0
    share = min(1.0, (LATE - behind) / (LATE - FRESH))
    return max(LINGER, REST * spent * share)


def passes(error: Exception) -> bool:
    """Whether the same may succeed later. What is over a limit of Postgres stays so."""
    return may_pass(error) and not isinstance(error, errors.ProgramLimitExceeded)


def may_pass(error: Exception) -> bool:
    """Whether it is the other side's trouble, and nothing that an event or this program is the reason of."""
    return isinstance(error, PASSING) or type(error) is psycopg.DatabaseError  # an answer that broke off


class Runner:
    """Keeps the live read models. `position` tells others in this process how far it is."""

    def __init__(self, nc: Client, dsn: str, secrets: Secrets, position: Position, models: Models = MODELS) -> None:
        self._models = models
        self._replays = False
        self._complaint = ""
        #: what failed last, and since when nothing could be taken in; when something was taken in last
        self.last_error: str | None = None
        self.failing_since: datetime | None = None
        self.last_success: datetime | None = None
        self._nc = nc
        self._parking = Parking(nc)
        self._dsn = dsn
        self._secrets = secrets
        self.position = position

    async def run(self) -> None:
        """Follow the log for ever. Raises CannotRun where Postgres does not know us, or we may not write."""
        pauses = RETRY.pauses()
        while True:
            started = self.position.value
            try:
                async with await database.connected(self._dsn, "projections") as conn:
                    await self._session(conn)
            except errors.InsufficientPrivilege as error:
                raise database.refused(self._dsn, error) from error
            except Exception as error:
                if not may_pass(error):
                    raise
                if self.position.value > started:
                    pauses = RETRY.pauses()
                self._tell(error)
            await asyncio.sleep(next(pauses))

    def _tell(self, error: Exception) -> None:
        """Each trouble once, until something was taken in again. A full disk names another file each time."""
        text = f"{type(error).__name__}: {error}".strip()
        self.last_error = text
        self.failing_since = self.failing_since or datetime.now(UTC)
        trouble = type(error).__name__ if isinstance(error, errors.DiskFull) else text
        if trouble != self._complaint:
            log.warning("projections wait", error=text, position=self.position.value)
            self._complaint = trouble

    async def _session(self, conn: Connection) -> None:
        await conn.execute("SET synchronous_commit = off")  # what a crash takes is replayed from the checkpoint
        await upgrade.ready(conn, self._dsn, self._models, self.replay)
        for seconds in RETRY.pauses():
            try:
                await self.follow(conn)
            except errors.DiskFull as error:  # the session stays the only writer
                self._tell(error)
                await asyncio.sleep(seconds)

    def replay(self, models: Models) -> upgrade.Replay:
        """How the log is taken in by a copy that holds these read models."""
        return Runner(self._nc, self._dsn, self._secrets, Position(), models).follow

    async def follow(self, conn: Connection, until: int | None = None) -> None:
        """Take in the log from the checkpoint on, for ever or up to and including position `until`.

        The connection is the only writer of its copy of the read models.
        """
        self._replays = until is not None
        after = await reached.mended(conn, self._models)
        end = await EventStore(self._nc).last_position()
        if end < max(after, until or 0):
            raise OtherLog(f"the log ends at {end}, the read models stand at {max(after, until or 0)}; rebuild them")
        self.position.set(after)
        if until is None and not self._complaint:
            log.info("projections run", position=after, behind=end - after)
        if until is not None and after >= until:
            return
        if after >= end:
            self.failing_since = None
        async with contextlib.aclosing(follow(self._nc, after)) as batches:
            async for batch in batches:
                wanted = [r for r in batch if until is None or r.position <= until]
                if not wanted:
                    return
                began = time.monotonic()
                await self._take(conn, after, wanted)
                after = wanted[-1].position
                self.position.set(after)
                self.failing_since, self.last_success = None, datetime.now(UTC)
                if self._complaint:
                    log.info("projections go on", position=after, behind=end - after)
                    self._complaint = ""
                await asyncio.sleep(pause(batch, time.monotonic() - began, datetime.now(UTC)))
                if until is not None and after >= until:
                    return
        raise Unavailable("the connection to the bus was closed")

    async def _take(self, conn: Connection, after: int, batch: Sequence[Recorded]) -> None:
        """Apply a batch, and park what is malformed in it.

        When that fails for no passing reason, event by event; one that still fails takes part with ever less of it, so
        that the rest goes on.
        """
        try:
            malformed = await apply(conn, self._secrets, after, batch, self._models)
        except Exception as error:
            if passes(error):
                raise
            if len(batch) > 1:
                for recorded in batch:
                    await self._take(conn, after, [recorded])
                    after = recorded.position
                return
            log.exception("event not applied", subject=batch[0].subject, position=batch[0].position)
            await self._with_less(conn, after, batch)
            malformed = [(batch[0], f"the read models cannot take it in: {first_line(error)}")]
        for recorded, reason in malformed:
            await self._park(recorded, reason)

    async def _with_less(self, conn: Connection, after: int, batch: Sequence[Recorded]) -> None:
        try:
            await apply(conn, self._secrets, after, batch, self._models, inert=True)
        except Exception as error:
            if passes(error):
                raise
            log.exception("event passed over", subject=batch[0].subject, position=batch[0].position)
            await apply(conn, self._secrets, after, batch, self._models, passed_over=True)

    async def _park(self, recorded: Recorded, reason: str) -> None:
        """Handlers park what is malformed as well: whoever is first. A replay parks nothing."""
        if self._replays:
            return
        try:
            await self._parking.park_message(recorded, reason)
        except Unavailable as error:
            log.warning("message not parked", position=recorded.position, reason=reason, error=str(error))


async def apply(
    conn: Connection,
    secrets: Secrets,
    after: int,
    batch: Sequence[Recorded],
    models: Models = MODELS,
    *,
    inert: bool = False,
    passed_over: bool = False,
) -> list[tuple[Recorded, str]]:
    """Take in the messages behind position `after` and move the checkpoint, or do nothing at all.

    Returns those that are malformed, and why: they are audited, and change nothing else. `inert`: the same for all of
    them. `passed_over`: only the checkpoint moves.

    A few events go through a pipeline, so that somebody who waits for one waits for five answers of Postgres instead of
    thirteen; many are copied, which no pipeline can. Raises Overtaken when the checkpoint is not at `after`.
    """
    last = ordered(after, batch)
    messages = [] if passed_over else [books.judged(recorded) for recorded in batch]
    async with conn.pipeline() if len(batch) < COPIED else contextlib.nullcontext(), conn.transaction():
        move = "UPDATE checkpoint SET position = %s, updated_at = now() WHERE position = %s RETURNING position"
        moved = await conn.execute(move, [last, after])
        before = await books.read(conn, models, messages)
        if await moved.fetchone() is None:
            raise Overtaken(f"the checkpoint is no longer at {after}")
        folded = before.copy()
        for recorded, found in messages:
            folded.take(recorded, found, inert=inert)
        await books.write(Session(conn, secrets), before, folded)
        await conn.execute("SELECT pg_notify(current_schema() || '_position', %s)", [str(last)])
    return folded.malformed


def ordered(after: int, batch: Sequence[Recorded]) -> int:
    """The position of the last event. Raises OutOfOrder unless positions rise from `after` on; a hole is logged."""
    for recorded in batch:
        if recorded.position <= after:
            raise OutOfOrder(f"position {recorded.position} came after {after}")
        if recorded.position > after + 1:
            log.error("log damaged: positions are missing", after=after, next=recorded.position)
        after = recorded.position
    return after
