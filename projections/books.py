"""All read models, and how they process a batch of messages: read once, fold in order, write once."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypeVar

from psycopg import ProgrammingError
from psycopg.errors import PipelineAborted

from domain.base import Event
from domain.kind import nobody
from domain.kinds import KINDS
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.judge import Malformed, body, evolved, follows, shape
from projections.accounts import SERVICE_ACCOUNTS, USERS
from projections.aggregates import OWNER, Aggregates
from projections.database import Connection
from projections.enrollments import ENROLLMENTS
from projections.events import EVENTS
from projections.flavors import FLAVORS
from projections.images import IMAGES
from projections.model import NO_ROW, Batch, ReadModel, Row, Session, Step
from projections.nodes import NODES
from projections.operation_rows import OPERATIONS
from projections.projects import PROJECTS
from projections.reservations import RESERVATIONS
from projections.seeds import SEEDS
from projections.tags import TAGS
from projections.tips import TIPS
from projections.tokens import TOKENS
from projections.usage import USAGE
from projections.vms import VMS

TABLES: Mapping[str, Aggregates[Any, Any]] = {
    table.kind: table
    for table in (PROJECTS, TAGS, IMAGES, FLAVORS, NODES, ENROLLMENTS, VMS, USERS, SERVICE_ACCOUNTS, TOKENS)
}

T = TypeVar("T")
Models = Sequence[ReadModel[Any, Any]]
MODELS: tuple[ReadModel[Any, Any], ...] = (
    *(table.read_model for table in TABLES.values()),
    RESERVATIONS,
    OPERATIONS,
    EVENTS,
    SEEDS,
    TIPS,
    USAGE,
)


def check(tables: Mapping[str, Aggregates[Any, Any]], models: Sequence[ReadModel[Any, Any]]) -> None:
    """Raises TypeError where a kind has no table, or two read models or indexes have one name, or one table."""
    if missing := sorted(set(KINDS) - set(tables)):
        raise TypeError(f"no table holds the resources of kind {', '.join(missing)}: add one to TABLES")
    if invisible := sorted(
        kind.name for kind in KINDS.values() if kind.owner is not nobody and OWNER not in tables[kind.name].columns
    ):
        raise TypeError(f"kind {', '.join(invisible)} has `owner`: its table needs the column {OWNER}")
    for model in models:
        _ = model.indexes
    names = [model.name for model in models]
    created = [table for model in models for table in model.tables]
    if twice := sorted({name for found in (names, created) for name in found if found.count(name) > 1}):
        raise TypeError(f"two read models are called {', '.join(twice)}, or create a table of that name: rename one")


check(TABLES, MODELS)

Fold = Callable[[dict[Any, Any], Step[Any]], None]

Judged = tuple[Recorded, Event | Malformed]
"""A message with its event, or with the reason why it is malformed."""


@dataclass
class Books:
    """The rows of all read models that a batch may change.

    `held`: the rows of each read model, by its name. `malformed`: the messages that were ignored, and the reasons.
    """

    models: Models = MODELS
    rows: dict[Ref, Row[Any]] = field(default_factory=dict)
    held: dict[str, dict[Any, Any]] = field(default_factory=dict)
    malformed: list[tuple[Recorded, str]] = field(default_factory=list)
    _by_kind: dict[str | None, list[tuple[Fold, dict[Any, Any]]]] = field(default_factory=dict, repr=False)

    def copy(self) -> "Books":
        return Books(self.models, copy(self.rows), {name: copy(held) for name, held in self.held.items()})

    def apply(self, recorded: Recorded, found: Event | Malformed, *, inert: bool = False) -> None:
        """Apply the next message. An `inert` event is part of the history and changes no state."""
        step: Step[Any]
        kind, wrong = None, found if isinstance(found, Malformed) else None
        if isinstance(found, Malformed):
            step = Step(recorded, stray=True)
        else:
            step, wrong = self._next(recorded, found, inert)
            kind = None if step.stray else recorded.ref.kind
        if wrong is not None:
            self.malformed.append((recorded, wrong.reason))
        for fold, held in self._folds(kind):
            fold(held, step)

    def _folds(self, kind: str | None) -> list[tuple[Fold, dict[Any, Any]]]:
        """The `fold` of each read model that follows this kind, with the rows of that read model."""
        if kind not in self._by_kind:
            follow = [model for model in self.models if model.follows(kind)]
            self._by_kind[kind] = [(model.fold, self.held.setdefault(model.name, {})) for model in follow]
        return self._by_kind[kind]

    def _next(self, recorded: Recorded, event: Event, inert: bool) -> tuple[Step[Any], Malformed | None]:
        """An event of the right shape, as part of the history of its aggregate."""
        ref = recorded.ref
        table = TABLES.get(ref.kind)
        if table is None:
            return Step(recorded, None if inert else event), None
        before = self.rows.get(ref, NO_ROW)
        wrong = follows(recorded, before.version, before.digest)
        if wrong is not None:
            return Step(recorded, stray=True), wrong
        state, wrong = (before.state, None) if inert else evolved(table.of.evolve, before.state, event)
        row = self.rows[ref] = before.after(state, recorded)
        return Step(recorded, None if inert else event, before.state, row), wrong


def judged(recorded: Recorded) -> Judged:
    """A message, checked without its history."""
    return recorded, shape(recorded) or body(recorded)


async def read(
    conn: Connection, models: Models, batch: Sequence[Judged], known: Mapping[Ref, Row[Any]] | None = None
) -> Books:
    """The rows of all read models that these messages may change. `known`: aggregates that need not be read.

    In a pipeline this takes two round trips to Postgres, or one if all aggregates are known.
    """
    events = [(recorded, found) for recorded, found in batch if not isinstance(found, Malformed)]
    needed = {recorded.ref for recorded, _ in events}
    rows = {ref: row for ref, row in known.items() if ref in needed} if known else {}
    needed -= rows.keys()
    rows.update(await _histories(conn, models, needed))
    touched = Batch(events, rows)
    kinds = {ref.kind for ref in rows}
    loads = [(one.name, one.load) for one in models if one.load and any(one.follows(kind) for kind in kinds)]
    loaded = await together([load(conn, touched) for _, load in loads])
    held = dict(zip((name for name, _ in loads), loaded, strict=True))
    for model in models:
        if model.completes is not None and (found := held.get(model.name)):
            model.completes(found, rows)
    return Books(models, rows, held)


async def _histories(conn: Connection, models: Models, needed: Collection[Ref]) -> dict[Ref, Row[Any]]:
    """The aggregates as they are stored. The first read model that has one counts."""
    asked = [
        each.histories(conn, refs)
        for each in models
        if each.histories is not None and (refs := [ref for ref in needed if each.follows(ref.kind)])
    ]
    rows: dict[Ref, Row[Any]] = dict.fromkeys(needed, NO_ROW)
    for found in reversed(await together(asked)):
        rows.update(found)
    return rows


async def together(queries: Iterable[Awaitable[T]]) -> list[T]:
    """The results of queries that are sent together. After all of them have ended, raises the first error.

    A query that fails in a pipeline makes others fail, as aborted or without a result: the cause counts.
    """
    found = await asyncio.gather(*queries, return_exceptions=True)
    wrong = [each for each in found if isinstance(each, BaseException)]
    if wrong:
        raise next((error for error in wrong if not follows_another(error)), wrong[0])
    return [each for each in found if not isinstance(each, BaseException)]


def follows_another(error: BaseException) -> bool:
    """Whether psycopg raises this of a query because another one in its pipeline has failed: no server said it."""
    return isinstance(error, PipelineAborted) or (isinstance(error, ProgrammingError) and error.sqlstate is None)


async def write(session: Session, before: Books, after: Books) -> None:
    """Write the rows that have changed."""
    for model in after.models:
        if held := after.held.get(model.name):
            await model.save(session, before.held.get(model.name, {}), held)
