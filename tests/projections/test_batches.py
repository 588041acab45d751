"""Rows do not depend on how messages are batched: one by one, in random batches, or all at once."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, pairwise
from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest

from domain.base import Resources
from domain.node import CapacityReserved
from eventstore.log.envelope import GENESIS, Context, Recorded, Ref, seal
from projections import bulk, copies, database, transaction
from projections.books import MODELS, judged
from projections.model import Row
from projections.transaction import apply
from runtime.local.servers import Postgres
from tests.conftest import fresh_database
from tests.history.test_history import HERE, STORIES
from tests.projections.golden_rows import STORED_AT, FixedSecrets, messages, rows_of, unknown

#: Text with every character that COPY or an array literal could misread.
NASTY = "\\ \\N \\. \t\n\r\b\f\v,{}\"'\N{GRINNING FACE}\u2028\x7f"


def renamed(story: str) -> Iterator[Recorded]:
    """A golden history whose aggregate no other history has."""

    def rename(id_: str) -> str:
        try:
            return str(uuid5(UUID(id_), story))
        except ValueError:
            return f"{id_}-{story}"[:60]

    return messages(HERE / f"{story}.jsonl", rename)


def strays() -> Iterator[Recorded]:
    """Messages that the judge refuses, or whose text is hard to write, in between."""
    first = unknown()
    yield first
    yield replaced(first, headers={"any": NASTY})
    yield replaced(first, subject="nebula.events", headers={}, body=b"\\x00\x00\xff\n")
    ref = Ref("system", "node", NASTY[:1])
    event = CapacityReserved(at=STORED_AT, vm="x", resources=Resources(vcpus=1))
    yield Recorded(1, "nebula.events.system.node.x", *seal(ref, 9, GENESIS, event, Context(actor=NASTY)), STORED_AT)


def replaced(recorded: Recorded, **changes: object) -> Recorded:
    return replace(recorded, **changes)  # type: ignore[arg-type]


def log(seed: int) -> list[Recorded]:
    """All golden histories and the strays in one log, each in its own order."""
    chance, positions = random.Random(seed), count(1)
    waiting = [list(renamed(story.stem)) for story in STORIES] + [[stray] for stray in strays()]
    merged = []
    while waiting:
        history = chance.choice(waiting)
        merged.append(replaced(history.pop(0), position=next(positions)))
        waiting = [each for each in waiting if each]
    return merged


async def rows(postgres: Postgres, recorded: Sequence[Recorded], borders: Sequence[int]) -> dict[str, list[str]]:
    """All rows after the messages were applied in batches with these borders."""
    parked: list[int] = []
    known: Mapping[Ref, Row[Any]] = {}

    async def park(malformed: Sequence[tuple[Recorded, str]]) -> None:
        parked.extend(each.position for each, _ in malformed)

    async with await database.connect(await fresh_database(postgres), "test", "batches") as conn:
        await copies.make(conn, MODELS, "batches")
        for start, end in pairwise([0, *borders, len(recorded)]):
            if start < end:
                fresh = [judged(replaced(each)) for each in recorded[start:end]]
                known = await apply(conn, FixedSecrets(), start, fresh, MODELS, park=park, known=known)
        tables = [table for model in MODELS for table in model.tables]
        return {"parked": [str(each) for each in parked]} | {table: await rows_of(conn, table) for table in tables}


@pytest.mark.parametrize("seed", range(3))
async def test_rows_are_the_same_for_any_batches(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    recorded = log(seed)
    end = len(recorded)
    one_by_one = await rows(postgres, recorded, range(1, end))
    assert all(one_by_one.values()), "every table has a row"
    assert len(one_by_one["parked"]) >= 3
    monkeypatch.setattr(bulk, "COPIED", 1)
    monkeypatch.setattr(transaction, "KEPT", 1)
    chance = random.Random(seed)
    for batches in (0, 3, 20):
        borders = sorted(chance.sample(range(1, end), batches))
        assert await rows(postgres, recorded, borders) == one_by_one, borders


@pytest.mark.parametrize("value", [NASTY, "", "\\", "\\.", "\\N", "NULL", "{}", '"', "a\\", "\ud7ff\ue000"])
async def test_text_is_copied_as_it_is(postgres: Postgres, value: str) -> None:
    async with await database.connect(postgres.dsn, "test") as conn, conn.transaction(force_rollback=True):
        await conn.execute("CREATE TABLE public.copied (n int, t text, a text[], b bytea, f boolean, m timestamptz)")
        row = (1, value, [value, "", value], value.encode(), True, STORED_AT)
        none: tuple[object, ...] = (2, None, [], b"", False, None)
        names = ("n", "t", "a", "b", "f", "m")
        await bulk.insert(conn, "public.copied", names, [row, none])
        cursor = await conn.execute("SELECT * FROM public.copied ORDER BY n")
        assert [tuple(found.values()) for found in await cursor.fetchall()] == [row, none]


async def test_text_that_is_not_unicode_is_refused(postgres: Postgres) -> None:
    async with await database.connect(postgres.dsn, "test") as conn:
        with pytest.raises(UnicodeEncodeError):
            await bulk.insert(conn, "pg_class", ("relname",), [["\ud800"]])
        with pytest.raises(psycopg.Error):
            await bulk.insert(conn, "missing", ("a",), [["b"]])
