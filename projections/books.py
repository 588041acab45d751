"""One batch of events folded over what the read models hold: read once, fold in order, write once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain import operation as operations
from domain.base import Event
from domain.operation import Operation
from domain.vm import Vm
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.judge import Malformed, body, evolved, follows, shape
from eventstore.log.operations import happening
from projections import events, operation_rows, seeds, tips
from projections.aggregates import Aggregates, Row
from projections.database import LONGEST, Connection
from projections.images import IMAGES
from projections.model import ReadModel
from projections.nodes import NODES
from projections.projects import PROJECTS
from projections.seeds import Secrets, Seed
from projections.tags import TAGS
from projections.vms import VMS

TABLES: Mapping[str, Aggregates[Any]] = {table.kind: table for table in (PROJECTS, TAGS, IMAGES, NODES, VMS)}
MODELS: tuple[ReadModel, ...] = (
    *(table.read_model for table in TABLES.values()),
    operation_rows.READ_MODEL,
    events.READ_MODEL,
    seeds.READ_MODEL,
    tips.READ_MODEL,
)


@dataclass
class Books:
    """The rows that a batch touches: as they were, then as they become.

    `malformed`: what was not taken in, and why; `strays`: the positions of those that are part of no history.
    """

    rows: dict[Ref, Row[Any]] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    seeds: dict[Ref, Seed | None] = field(default_factory=dict)
    malformed: list[tuple[Recorded, str]] = field(default_factory=list)
    strays: set[int] = field(default_factory=set)

    def fold(self, recorded: Recorded, event: Event, *, inert: bool = False) -> None:
        """Take in the next event. An `inert` one is part of the history and changes nothing."""
        ref = recorded.ref
        before = self.rows.get(ref, Row())
        table = TABLES.get(ref.kind)
        if table is not None:
            wrong = follows(recorded, before.version, before.digest)
            if wrong is not None:
                self.malformed.append((recorded, wrong.reason))
                self.strays.add(recorded.position)
                return
            state, wrong = (before.state, None) if inert else evolved(table.evolve, before.state, event)
            if wrong is not None:
                self.malformed.append((recorded, wrong.reason))
            self.rows[ref] = before.after(state, recorded)
            if isinstance(state, Vm) and not inert:
                self.seeds[ref] = seeds.evolve(self.seeds.get(ref), state, event)
        if not inert:
            self._move_operations(recorded, event, before.state)

    def _move_operations(self, recorded: Recorded, event: Event, before: Any) -> None:
        named = (recorded.context.operation, operations.overtaken(event, before))
        for id_ in dict.fromkeys(id_ for id_ in named if id_ is not None and len(id_) <= LONGEST):
            moved = operations.after(self.operations.get(id_), id_, event, happening(recorded))
            if moved is not None:
                self.operations[id_] = moved


def typed(batch: Iterable[Recorded]) -> tuple[list[tuple[Recorded, Event]], list[tuple[Recorded, str]]]:
    """The messages that are events by themselves, and the others with what is wrong with them."""
    entries: list[tuple[Recorded, Event]] = []
    malformed: list[tuple[Recorded, str]] = []
    for recorded in batch:
        found = shape(recorded) or body(recorded)
        if isinstance(found, Malformed):
            malformed.append((recorded, found.reason))
        else:
            entries.append((recorded, found))
    return entries, malformed


async def read(conn: Connection, entries: Sequence[tuple[Recorded, Event]]) -> Books:
    """What the read models hold of everything that these events touch."""
    books = Books()
    asked: set[str] = set()
    refs: dict[str, set[Ref]] = {}
    for recorded, event in entries:
        refs.setdefault(recorded.ref.kind, set()).add(recorded.ref)
        asked.update(_named(recorded, event))
    for kind, table in TABLES.items():
        if kind in refs:
            books.rows.update(await table.load(conn, refs[kind]))
    books.rows.update(await tips.load(conn, [ref for ref, row in books.rows.items() if row.version == 0]))
    if "vm" in refs:
        books.seeds.update(await seeds.load(conn, refs["vm"]))
    for row in books.rows.values():  # deleting an image that is being verified cancels its registration
        if registered := getattr(row.state, "registered_by", None):
            asked.add(registered)
    if asked:
        books.operations.update(await operation_rows.load(conn, asked))
    return books


def _named(recorded: Recorded, event: Event) -> Iterable[str]:
    operation = recorded.context.operation
    cancels = getattr(event, "cancels", None)
    return [name for name in (operation, cancels) if name]


async def write(conn: Connection, secrets: Secrets, before: Books, after: Books) -> None:
    """Write what has changed."""
    for kind, table in TABLES.items():
        await table.save(conn, {ref: row for ref, row in after.rows.items() if ref.kind == kind})
    await tips.save(conn, {ref: row for ref, row in after.rows.items() if row.state is None and row.version})
    await tips.drop(
        conn, [ref for ref, row in before.rows.items() if row.state is None and row.version and after.rows[ref].state]
    )
    await operation_rows.save(conn, [op for op in after.operations.values() if op != before.operations.get(op.id)])
    changed = {ref: seed for ref, seed in after.seeds.items() if seed != before.seeds.get(ref)}
    await seeds.save(conn, secrets, changed)
