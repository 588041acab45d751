"""Travelling to any position of a history shows what stepping through it has shown."""

import random
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from pydantic_core import to_json

from eventstore.log.envelope import Recorded, Ref
from projections import aggregates, bulk, copies, database, operation_rows, pages, transaction
from projections.aggregates import Aggregates
from projections.books import MODELS, TABLES, Models, judged
from projections.database import Pool
from projections.model import Row
from projections.past import heads, queries
from projections.past.models import PAST, PAST_MODELS
from projections.past.versions import name_of
from projections.shelf import NOW
from projections.transaction import apply
from runtime.local.servers import Postgres
from tests.conftest import fresh_database
from tests.projections.golden_rows import FixedSecrets, rows_of
from tests.projections.test_batches import log, replaced

#: Items of a page: some lists have several pages.
LIMIT = 3
MOST = 200
#: Logs with the same events in other orders. After each event a part of the lists that it may change is asked for, in
#: each log another part, so together all.
SEEDS = 3


@dataclass
class World:
    """Everything that reads show at one position."""

    one: dict[Ref, tuple[str, bool, int, int] | None] = field(default_factory=dict)
    lists: dict[tuple[object, ...], list[str]] = field(default_factory=dict)
    operations: dict[tuple[object, ...], object] = field(default_factory=dict)


async def park(_: Sequence[tuple[Recorded, str]]) -> None:
    pass


async def apply_all(
    conn: database.Connection, models: Models, recorded: Sequence[Recorded], borders: Sequence[int], start: int = 0
) -> None:
    known: Mapping[Ref, Row[Any]] = {}
    for first, last in pairwise([start, *borders, len(recorded)]):
        if first < last:
            fresh = [judged(replaced(each)) for each in recorded[first:last]]
            known = await apply(conn, FixedSecrets(), first, fresh, models, park=park, known=known)


async def distinct(pool: Pool, table: Aggregates[Any, Any]) -> dict[str, list[str]]:
    """For each filter of a list, the values that can match a row."""
    found: dict[str, list[str]] = {}
    for name, condition in table.filters.items():
        column = next(each for each in (*table.columns, "project", "id") if condition.lstrip("(").startswith(each))
        value = f"unnest({column})" if "@>" in condition else column
        rows = await database.fetch(
            pool,
            f"SELECT DISTINCT {value} AS value FROM {name_of(table)}",
            {},
        )
        found[name] = sorted(row["value"] for row in rows.rows if row["value"] is not None)
    return found


Asked = list[tuple[Aggregates[Any, Any], dict[str, str | None], list[str] | None]]
"""Lists: the table, the filters, and whose."""


async def asked(pool: Pool) -> Asked:
    found: Asked = []
    projects = [row["id"] for row in (await database.fetch(pool, "SELECT id FROM past_projects", {})).rows]
    mine = [None, [], sorted(set(projects))[:2]]
    for table in TABLES.values():
        found += [(table, {}, each) for each in mine]
        found += [
            (table, {name: value}, None) for name, all_ in (await distinct(pool, table)).items() for value in all_
        ]
    return found


OPERATIONS: list[dict[str, str | None]] = [{}, {"status": "running"}, {"status": "failed"}, {"kind": "vm"}]
OfOperations = Sequence[tuple[dict[str, str | None], bool]]
"""Lists of operations: the filters, and whether only some projects are asked for."""
OPERATION_LISTS: OfOperations = [(filters, some) for filters in OPERATIONS for some in (False, True)]


async def now(
    pool: Pool, refs: Sequence[Ref], lists: Asked, ids: Sequence[str], operations: OfOperations, mine: list[str]
) -> World:
    """What the read models of the present show."""
    world = World()
    for ref in refs:
        table = TABLES[ref.kind]
        found, _ = await aggregates.get(pool, table, ref, mine=None)
        text = to_json(table.shown(found)).decode() if found is not None else ""
        world.one[ref] = (text, found.deleted, found.version, found.position) if found is not None else None
    for table, filters, whose in lists:
        after: int | None = 0
        texts: list[str] = []
        while after is not None:
            page = await pages.matching(pool, table, filters, after, LIMIT, mine=whose)
            texts, after = [*texts, *page.texts], page.next
        world.lists[key(table, filters, whose)] = texts
    for id_ in ids:
        world.operations[id_,] = (await operation_rows.get(pool, id_, mine=None))[0]
    for wanted, some in operations:
        listed = await operation_rows.page(pool, wanted, None, MOST, mine=mine if some else None)
        world.operations[str(wanted), some] = listed[0]
    return world


async def then(
    pool: Pool,
    at: int,
    refs: Sequence[Ref],
    lists: Asked,
    ids: Sequence[str],
    operations: OfOperations,
    mine: list[str],
) -> World:
    """The same, as the past shows it at a position."""
    world = World()
    for ref in refs:
        found = await queries.one(pool, TABLES[ref.kind], ref, at, mine=None)
        world.one[ref] = (found.text, found.deleted, found.version, found.position) if found is not None else None
    for table, filters, whose in lists:
        after: int | None = 0
        texts: list[str] = []
        while after is not None:
            page = await queries.page(pool, table, filters, at, after, LIMIT, mine=whose)
            texts, after = [*texts, *page.texts], page.next
            assert page.position == at
        world.lists[key(table, filters, whose)] = texts
    for id_ in ids:
        world.operations[id_,] = await queries.operation(pool, id_, at, mine=None)
    for wanted, some in operations:
        listed = await queries.operations(pool, wanted, at, None, MOST, mine=mine if some else None)
        world.operations[str(wanted), some] = listed[0]
    return world


def key(table: Aggregates[Any, Any], filters: dict[str, str | None], whose: list[str] | None) -> tuple[object, ...]:
    return table.table, str(filters), str(whose)


@dataclass
class Both:
    """A database with the read models of the present and of the past."""

    dsn: str
    present: database.Connection
    past: database.Connection
    pool: Pool
    past_pool: Pool


@asynccontextmanager
async def both(postgres: Postgres) -> AsyncIterator[Both]:
    dsn = await fresh_database(postgres)
    async with (
        await database.connect(dsn, "test", NOW.schema) as present,
        await database.connect(dsn, "test", PAST.schema) as past,
    ):
        await copies.make(present, MODELS, NOW.schema)
        await copies.make(past, PAST_MODELS, PAST.schema)
        async with database.pool(dsn, "test") as pool, queries.pool(dsn, "test") as past_pool:
            yield Both(dsn, present, past, pool, past_pool)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_travel_to_each_position_is_as_stepping_through_it(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    recorded = log(seed)
    end = len(recorded)
    refs = sorted({each.ref for each in recorded if valid(each) and each.ref.kind in TABLES})
    ids = sorted({each.operation for each in recorded if valid(each) and each.operation})
    chance = random.Random(seed)
    async with both(postgres) as made:
        with monkeypatch.context() as patched:
            patched.setattr(bulk, "COPIED", 4)
            patched.setattr(transaction, "KEPT", 4)
            await apply_all(made.past, PAST_MODELS, recorded, sorted(chance.sample(range(1, end), 20)))
        lists = await asked(made.past_pool)
        assert {table.table for table, filters, _ in lists if filters} >= {"vms", "images", "nodes", "tokens"}
        mine = [
            row["owner"] for row in (await database.fetch(made.past_pool, "SELECT owner FROM operation_heads", {})).rows
        ]
        differs = 0
        before = World()
        for position, each in enumerate(recorded, start=1):
            await apply(made.present, FixedSecrets(), position - 1, [judged(replaced(each))], MODELS, park=park)
            near = [ref for ref in refs if valid(each) and ref == each.ref] + chance.sample(refs, 2)
            part = slice((zlib.crc32(each.subject.encode() + each.body) + seed) % SEEDS, None, SEEDS)
            some = [one for one in lists if valid(each) and one[0].kind == each.ref.kind][part]
            some += chance.sample(lists, 2)
            own = [each.operation] if valid(each) and each.operation else []
            asking = (near, some, [*own, *chance.sample(ids, 1)], OPERATION_LISTS[part], mine[:3])
            seen = await now(made.pool, *asking)
            assert await then(made.past_pool, position, *asking) == seen, (position, each.subject)
            differs += seen.one != before.one
            before = seen
        assert differs > end / 2, "most events show in the resource that they are of"
        whole = (refs, lists, ids, OPERATION_LISTS, mine[:3])
        assert await then(made.past_pool, end, *whole) == await now(made.pool, *whole)
        nothing = await then(made.past_pool, 0, *whole)
        assert not any(nothing.one.values())
        assert not any(nothing.lists.values())
        assert not any(nothing.operations.values())
        with pytest.raises(queries.NotReached):
            await queries.page(made.past_pool, TABLES["vm"], {}, end + 1, 0, 10, mine=None)


def valid(recorded: Recorded) -> bool:
    """Whether it is an event of an aggregate."""
    try:
        return bool(recorded.ref and recorded.type and recorded.context)
    except (KeyError, ValueError):
        return False


async def all_rows(conn: database.Connection) -> dict[str, list[str]]:
    return {table: await rows_of(conn, table) for model in PAST_MODELS for table in model.tables}


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_rows_of_the_past_do_not_depend_on_batches(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    recorded = log(seed)
    end, chance = len(recorded), random.Random(seed)
    async with both(postgres) as made:
        await apply_all(made.past, PAST_MODELS, recorded, range(1, end))
        one_by_one = await all_rows(made.past)
        assert all(one_by_one.values()), "every table has a row"
        monkeypatch.setattr(bulk, "COPIED", 1)
        monkeypatch.setattr(transaction, "KEPT", 1)
        for batches in (0, 3, 20):
            await copies.make(made.past, PAST_MODELS, PAST.schema)
            await apply_all(made.past, PAST_MODELS, recorded, sorted(chance.sample(range(1, end), batches)))
            assert await all_rows(made.past) == one_by_one, batches


async def test_an_interrupted_batch_leaves_nothing(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(BaseException):
        pass

    recorded, begun = log(0), 3
    async with both(postgres) as made:
        await apply_all(made.past, PAST_MODELS, recorded, [])
        expected = await all_rows(made.past)
        for model in PAST_MODELS:
            await copies.make(made.past, PAST_MODELS, PAST.schema)
            await apply_all(made.past, PAST_MODELS, recorded[:begun], [])
            half = await all_rows(made.past)

            async def crashing(*_: object) -> None:
                raise Crash

            broken = [each if each is not model else replace(each, save=crashing) for each in PAST_MODELS]
            with pytest.raises(Crash):
                await apply_all(made.past, broken, recorded, [], begun)
            assert await all_rows(made.past) == half
            await apply_all(made.past, PAST_MODELS, recorded, [], begun)
            assert await all_rows(made.past) == expected


def test_every_kind_has_its_past() -> None:
    names = [table for model in PAST_MODELS for table in model.tables]
    assert len(set(names)) == len(names)
    assert {f"past_{table.table}" for table in TABLES.values()} <= set(names)
    for model in PAST_MODELS:
        _ = model.indexes
    assert heads.HEADS.histories is not None
