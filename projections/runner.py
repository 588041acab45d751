"""Follows the log and updates the read models: every event once, in order, rows and checkpoint in one transaction.

- The checkpoint is in the same database as the rows, so a crash at any point repeats or loses nothing.
- One runner works at a time, the others stand by. Each transaction checks the checkpoint before it changes it. A
  checkpoint that was changed by hand is first corrected from the rows (`reached.py`).
- A malformed message (`eventstore/log/judge.py`) is parked and gets a row in the audit index, and changes nothing else.
  An event that cannot be applied stays in its aggregate's history and is parked as well. Neither stops the rest.
- It is parked before the checkpoint moves past it. If that fails, the checkpoint stays, and both are tried again. After
  a crash in between, the message is parked a second time, which changes nothing.
- If Postgres or the bus is down, the runner logs this once, waits, and continues from the checkpoint.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from nats.aio.client import Client
from nats.errors import Error as NatsError
from psycopg import errors

from eventstore.log.envelope import Recorded, Ref
from eventstore.log.judge import first_line
from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore, Unavailable
from eventstore.parking.parking import Parking
from eventstore.vault.vault import VaultUnavailable
from projections import behind, bulk, copies, database, reached, upgrade
from projections.activity import Activity
from projections.books import MODELS, Judged, Models
from projections.database import Connection
from projections.holes import complete
from projections.model import Row, Secrets
from projections.pause import Recent, pause
from projections.position import Position
from projections.shelf import Shelf
from projections.transaction import OutOfOrder, Overtaken, apply
from runtime import logs
from runtime.garbage import fewer_collections
from runtime.tasks.backoff import Backoff

log = logs.get(__name__)

RETRY = Backoff(first=0.1, last=5.0)


class OtherLog(Exception):
    """The read models are ahead of the log: they were made from another log."""


#: Errors that end when the other side comes back. Every other error is caused by the event, or is a bug.
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


def passes(error: Exception) -> bool:
    """Whether the same event may succeed later. One that exceeds a limit of Postgres never does."""
    return may_pass(error) and not isinstance(error, errors.ProgramLimitExceeded)


def may_pass(error: Exception) -> bool:
    """Whether the cause is the other side, and not an event or this program."""
    return isinstance(error, PASSING) or type(error) is psycopg.DatabaseError  # an answer that was cut off


Source = Callable[[int], AsyncGenerator[Sequence[Judged], None]]


class Runner:
    """Updates the live read models. `position` is the log position that others in this process can wait for."""

    def __init__(
        self,
        nc: Client,
        dsn: str,
        secrets: Secrets,
        position: Position,
        models: Models = MODELS,
        event_keys: EventKeys | None = None,
        *,
        parks: bool = True,
        schema: str = database.SCHEMA,
        source: Source | None = None,
    ) -> None:
        """`parks`: whether it parks what cannot be applied; False for a copy that nobody will read. `schema`: that of
        the live read models. `source`: the messages after a position, for ever; None: as soon as the log has them.
        """
        self._shelf = Shelf(schema, models)
        self._source = source
        self.activity = Activity()
        self._models = models
        self._parks = parks
        self._complaint = ""
        #: the last error; since when no message could be applied; when messages were last applied
        self.last_error: str | None = None
        self.failing_since: datetime | None = None
        self.last_success: datetime | None = None
        self._nc = nc
        self._event_keys = event_keys
        self._parking = Parking(nc)
        self._dsn = dsn
        self._secrets = secrets
        self.position = position
        #: the aggregates of the last batch, if it was large: the next batch often has the same
        self._known: Mapping[Ref, Row[Any]] = {}

    async def run(self) -> None:
        """Follow the log for ever. Raises CannotRun if Postgres refuses this role, or it may not write."""
        pauses = RETRY.pauses()
        while True:
            started = self.position.value
            try:
                async with await database.connected(self._dsn, "projections", self._shelf.schema) as conn:
                    await self._session(conn)
            except errors.InsufficientPrivilege as error:
                raise database.refused(self._dsn, error) from error
            except Exception as error:
                if not may_pass(error):
                    raise
                if self.position.value > started:
                    pauses = RETRY.pauses()
                self._log_once(error)
            await asyncio.sleep(next(pauses))

    def _log_once(self, error: Exception) -> None:
        """Log each error once, until messages are applied again. A full disk names another file each time."""
        text = f"{type(error).__name__}: {error}".strip()
        self.last_error = text
        self.failing_since = self.failing_since or datetime.now(UTC)
        trouble = type(error).__name__ if isinstance(error, errors.DiskFull) else text
        if trouble != self._complaint:
            log.warning("projections wait", schema=self._shelf.schema, error=text, position=self.position.value)
            self._complaint = trouble

    async def _session(self, conn: Connection) -> None:
        await conn.execute("SET synchronous_commit = off")  # what is lost in a crash is replayed from the checkpoint
        await upgrade.ready(conn, self._dsn, self._shelf, self.replay)
        for seconds in RETRY.pauses():
            try:
                await self.follow(conn)
            except errors.DiskFull as error:  # the session stays the only writer
                self._log_once(error)
                await asyncio.sleep(seconds)
            finally:
                self.activity.ends()

    async def build(self) -> None:
        """Make the live read models as new as the log is now, as the only writer, and return. Raises as `follow`."""
        async with await database.connected(self._dsn, "projections", self._shelf.schema) as conn:
            await conn.execute("SET synchronous_commit = off")
            await upgrade.ready(conn, self._dsn, self._shelf, self.replay)
            await self.follow(conn, await EventStore(self._nc, self._event_keys).last_position())
            await copies.index(conn, self._models)

    def replay(self, models: Models) -> upgrade.Replay:
        """A function that applies the log to a copy that has these read models."""
        return Runner(
            self._nc, self._dsn, self._secrets, Position(), models, self._event_keys, parks=self._parks
        ).follow

    async def follow(self, conn: Connection, until: int | None = None) -> None:
        """Apply the log from the checkpoint on, for ever or up to and including position `until`.

        `conn` must be the only writer of its copy of the read models. Raises OtherLog, OutOfOrder, Unavailable.
        """
        after = await reached.mended(conn, self._models)
        end = await EventStore(self._nc).last_position()
        if end < max(after, until or 0):
            raise OtherLog(
                f"the log ends at {end}, the read models are at {max(after, until or 0)}: run `nebula rebuild`"
            )
        self.position.set(after)
        if until is None and not self._complaint:
            log.info("projections run", schema=self._shelf.schema, position=after, behind=end - after)
        if until is not None and after >= until:
            return
        lacks_indexes = until is None
        if after >= end:
            self.failing_since = None
            self.activity.follows()
        self._known, recent = {}, Recent()
        messages = self._messages(after, end if until is None else until, for_ever=until is None)
        async with fewer_collections(), bulk.by_key(conn), contextlib.aclosing(messages) as batches:
            if lacks_indexes and end - after < behind.WORTH_IT:
                await copies.index(conn, self._models)
                lacks_indexes = False
            async for batch in batches:
                selected = batch
                if until is not None and batch[-1][0].position > until:
                    selected = [each for each in batch if each[0].position <= until]
                if not selected:
                    return
                self.activity.works()
                began = time.monotonic()
                selected = await complete(EventStore(self._nc, self._event_keys), after, selected)
                await self._apply(conn, after, selected)
                after = selected[-1][0].position
                self.position.set(after)
                self.failing_since, self.last_success = None, datetime.now(UTC)
                if lacks_indexes and after >= end:
                    await copies.index(conn, self._models)
                    lacks_indexes = False
                if self._complaint:
                    log.info("projections go on", schema=self._shelf.schema, position=after, behind=end - after)
                    self._complaint = ""
                self.activity.rests()
                if after >= end:
                    self.activity.follows()
                ended = time.monotonic()
                newest, lately = batch[-1][0].stored_at, recent.note(len(batch), ended)
                await asyncio.sleep(pause(len(batch), newest, ended - began, datetime.now(UTC), lately))
                if until is not None and after >= until:
                    return
        raise Unavailable("the connection to the bus was closed")

    def _messages(self, after: int, goal: int, *, for_ever: bool) -> AsyncGenerator[Sequence[Judged], None]:
        if for_ever and self._source is not None:
            return self._source(after)
        return behind.ahead(self._nc, after, goal, self._event_keys).batches()

    async def _apply(self, conn: Connection, after: int, batch: Sequence[Judged]) -> None:
        """Apply a batch. If that fails and the error will not pass, apply the events one by one. An event that still
        fails is applied without effect on states, or skipped, so that the rest continues.
        """
        known, self._known = self._known, {}
        try:
            self._known = await apply(conn, self._secrets, after, batch, self._models, park=self._park, known=known)
        except Exception as error:
            if passes(error):
                raise
            if len(batch) > 1:
                for one in batch:
                    await self._apply(conn, after, [one])
                    after = one[0].position
                return
            recorded, _ = batch[0]
            log.exception("event not applied", subject=recorded.subject, position=recorded.position)
            await self._apply_reduced(conn, after, batch[0], f"the read models cannot apply it: {first_line(error)}")

    async def _apply_reduced(self, conn: Connection, after: int, one: Judged, reason: str) -> None:
        """Apply an event without effect on states; if that fails too, move only the checkpoint."""
        recorded, _ = one

        async def park(_: Sequence[tuple[Recorded, str]]) -> None:
            await self._park([(recorded, reason)])

        try:
            await apply(conn, self._secrets, after, [one], self._models, park=park, inert=True)
        except Exception as error:
            if passes(error):
                raise
            log.exception("event skipped", subject=recorded.subject, position=recorded.position)
            await apply(conn, self._secrets, after, [one], self._models, park=park, skipped=True)

    async def _park(self, messages: Sequence[tuple[Recorded, str]]) -> None:
        """Park messages, or count those for which there is no room. Handlers park malformed ones too; the first one
        counts. Raises Unavailable.
        """
        if not self._parks:
            return
        for recorded, reason in messages:
            await self._parking.park_message(recorded, reason)
        if messages:
            await self._parking.write_counts()
