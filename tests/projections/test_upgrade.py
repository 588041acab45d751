"""A new version of the read models takes the place of the live one, whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from projections import copies, database, rebuild, upgrade
from projections.books import MODELS
from projections.database import SCHEMA
from projections.model import ReadModel, Standing, standing, versions
from projections.position import Position
from projections.runner import Runner
from projections.shelf import NOW, Shelf
from runtime.local.servers import Postgres
from tests.projections.cloud import Cloud, cloud
from tests.waiting import eventually

Models = tuple[ReadModel[Any, Any], ...]


def raised(name: str = "seeds", column: str = "") -> Models:
    """The read models with the next version of one, which may have one more column."""
    added = f"ALTER TABLE {name} ADD COLUMN {column};" if column else ""
    return tuple(
        replace(model, version=model.version + 1, ddl=model.ddl + added) if model.name == name else model
        for model in MODELS
    )


NEW = raised("seeds", "colour text DEFAULT 'blue'")


@asynccontextmanager
async def running(cloud: Cloud, models: Models, position: Position) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(Runner(cloud.nc, cloud.dsn, cloud.vault, position, models).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def made(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Cloud]:
    """A cloud whose read models were made by the present version, which runs no more."""
    async with cloud(tmp_path, postgres) as made:
        await made.furnish()
        await made.running()
        async with running(made, MODELS, made.position):
            await made.caught_up()
        yield made


async def stored(cloud: Cloud) -> dict[str, int] | None:
    async with await database.connect(cloud.dsn, "test") as conn:
        return await copies.stored_versions(conn, SCHEMA)


async def schemas(cloud: Cloud) -> list[str]:
    async with await database.connect(cloud.dsn, "test") as conn:
        cursor = await conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'nebula%'")
        return [row["nspname"] for row in await cursor.fetchall()]


def is_stored(cloud: Cloud, models: Models, *, others: bool = False) -> Any:
    """Whether the live read models are of these versions, and (unless `others`) no other copy is left."""

    async def check() -> bool:
        return await stored(cloud) == versions(models) and (others or await schemas(cloud) == [SCHEMA])

    return check


async def sound(cloud: Cloud, models: Models) -> None:
    """The live read models are of these versions and what the log makes of them, and nothing else is left."""
    shelf = Shelf(SCHEMA, models)
    assert (await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault, shelf=shelf)).differing == ()
    assert await schemas(cloud) == [SCHEMA]


async def test_an_old_process_goes_on_until_the_new_one_takes_its_place(
    made: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Position(), Position()
    built, go = asyncio.Event(), asyncio.Event()
    catch_up = upgrade.catch_up

    async def slowly(*arguments: Any) -> None:
        await catch_up(*arguments)
        built.set()
        await go.wait()

    monkeypatch.setattr(upgrade, "catch_up", slowly)
    async with running(made, MODELS, old), running(made, NEW, new):
        await asyncio.wait_for(built.wait(), 60)
        await made.running()  # the live ones are kept by the old process meanwhile
        assert await old.reach(await made.store.last_position(), 60)
        assert await stored(made) == versions(MODELS)
        pool = database.pool(made.dsn, "test")
        async with pool:
            assert await upgrade.building(pool) is not None
            go.set()
            await eventually(is_stored(made, NEW), "the new version is live")
            assert await upgrade.building(pool) is None
        await made.running()
        assert await new.reach(await made.store.last_position(), 60)
    await sound(made, NEW)


@pytest.mark.parametrize("step", ["catch_up", "compared", "take_over", "move", "switch", "drop_old"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_a_crash_at_any_step_is_made_good(
    made: Cloud, step: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    whole = getattr(upgrade, step)

    async def crashing(*arguments: Any, **more: Any) -> None:
        if not before:
            await whole(*arguments, **more)
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(upgrade, step, crashing)
        task = asyncio.create_task(Runner(made.nc, made.dsn, made.vault, Position(), NEW).run())
        with pytest.raises(Crash):
            await asyncio.wait_for(task, 60)
    pool = database.pool(made.dsn, "test")
    async with pool:  # what answers reads is whole, be it the old or the new
        found = await database.fetch(pool, "SELECT id FROM vms", {})
        assert (found.position, len(found.rows)) == (await made.store.last_position(), 1)
    await made.running()
    async with running(made, NEW, made.position):
        await eventually(is_stored(made, NEW), "the new version is live")
        await made.caught_up()
        await sound(made, NEW)


async def test_two_new_processes_and_an_old_one_agree(made: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    switches = 0
    whole = upgrade.switch

    async def counted(*arguments: Any) -> None:
        nonlocal switches
        switches += 1
        await whole(*arguments)

    monkeypatch.setattr(upgrade, "switch", counted)
    old, one, two = Position(), Position(), Position()
    async with running(made, MODELS, old), running(made, NEW, one), running(made, NEW, two):
        await eventually(is_stored(made, NEW), "the new version is live")
        await made.running()
        end = await made.store.last_position()
        await eventually(lambda: max(one.value, two.value) == end, "one of them keeps the new version")
        assert min(one.value, two.value) == 0  # the other stands by
    assert switches == 1
    await sound(made, NEW)


async def test_an_older_process_leaves_newer_read_models_alone(made: Cloud) -> None:
    async with running(made, NEW, Position()):
        await eventually(is_stored(made, NEW), "the new version is live")
    older = Position()
    async with running(made, MODELS, older), running(made, NEW, made.position):
        await made.running()
        await made.caught_up()
        assert older.value == 0
    await sound(made, NEW)


async def test_read_models_of_before_versions_had_names_are_older(made: Cloud) -> None:
    async with await database.connect(made.dsn, "test") as conn:
        await conn.execute("DROP TABLE schema_version")
        await conn.execute("CREATE TABLE schema_version (version int NOT NULL)")
        await conn.execute("INSERT INTO schema_version VALUES (4)")
    async with running(made, MODELS, Position()):
        await eventually(is_stored(made, MODELS), "the new version is live")
    await sound(made, MODELS)


async def test_what_the_live_ones_had_wrong_is_logged(made: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    async with await database.connect(made.dsn, "test") as conn:
        await conn.execute("UPDATE vms SET phase = 'lost'")
    async with running(made, NEW, Position()):
        await eventually(is_stored(made, NEW), "the new version is live")
    said = capsys.readouterr()
    assert "live read models are not what the log makes of them" in said.out + said.err
    await sound(made, NEW)


async def test_prepared_statements_outlive_a_table_of_another_shape(made: Cloud) -> None:
    pool = database.pool(made.dsn, "test", size=1)
    async with pool:
        for _ in range(5):  # from the third on it is prepared
            before = await database.fetch(pool, "SELECT s.* FROM seeds s", {})
        assert before.row is not None
        assert "colour" not in before.row
        async with running(made, NEW, Position()):
            await eventually(is_stored(made, NEW), "the new version is live")
        after = await database.fetch(pool, "SELECT s.* FROM seeds s", {})
        assert after.row is not None
        assert after.row["colour"] == "blue"


async def test_a_reader_of_the_old_copy_delays_only_its_end(made: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "LOCK_SECONDS", 1)
    monkeypatch.setattr(upgrade, "TRIES", 1)
    async with await database.connect(made.dsn, "reader") as reader, reader.transaction():
        await reader.execute("SELECT count(*) FROM vms")
        async with running(made, NEW, made.position):
            await eventually(is_stored(made, NEW, others=True), "the new version is live")
            await made.running()
            await made.caught_up()
    assert "nebula_old" in await schemas(made)
    async with running(made, NEW, made.position):  # the next start drops it
        await eventually(is_stored(made, NEW), "the old copy is dropped")
    await sound(made, NEW)


async def relations(cloud: Cloud) -> dict[str, int]:
    """The tables of the live read models: another number once one was made anew."""
    async with await database.connect(cloud.dsn, "test") as conn:
        cursor = await conn.execute("SELECT relname, oid FROM pg_class WHERE relnamespace = 'nebula'::regnamespace")
        return {row["relname"]: row["oid"] for row in await cursor.fetchall() if row["relname"] in NOW.tables}


async def test_what_has_not_changed_is_not_made_anew(made: Cloud) -> None:
    before = await relations(made)
    async with running(made, NEW, made.position):
        await eventually(is_stored(made, NEW), "the new version is live")
        after = await relations(made)
        assert {table for table in before if before[table] == after[table]} == {"operations", "events", "usage"}
        await made.running()
        await made.caught_up()
        await sound(made, NEW)


async def test_a_table_that_is_read_for_long_is_made_anew(made: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for that reader: a table that moves would let all others wait behind it."""
    monkeypatch.setattr(upgrade, "MOVE_SECONDS", 0.05)
    monkeypatch.setattr(upgrade, "LOCK_SECONDS", 1)
    monkeypatch.setattr(upgrade, "TRIES", 1)
    before = await relations(made)
    async with await database.connect(made.dsn, "reader") as reader, reader.transaction():
        await reader.execute("SELECT count(*) FROM events")
        async with running(made, NEW, made.position):
            await eventually(is_stored(made, NEW, others=True), "the new version is live")
            await made.running()
            await made.caught_up()
    after = await relations(made)
    assert before.keys() == after.keys() and not before.items() & after.items()
    async with running(made, NEW, made.position):
        await eventually(is_stored(made, NEW), "the old copy is dropped")
    await sound(made, NEW)


LOST = "DELETE FROM events WHERE position > (SELECT position - 3 FROM checkpoint);"
DROPPED = "DROP TABLE events;"


@pytest.mark.parametrize(
    "lost", ["", LOST, DROPPED], ids=["a checkpoint set back by hand", "transactions lost in a crash", "no table"]
)
async def test_what_is_kept_is_as_new_as_the_rest(made: Cloud, lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(BaseException):
        pass

    async def crashing(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(upgrade, "take_over", crashing)
        with pytest.raises(Crash):  # the new copy is at the end of the log
            await Runner(made.nc, made.dsn, made.vault, Position(), NEW).run()
    before = await relations(made)
    async with await database.connect(made.dsn, "test") as conn:
        await conn.execute(f"{lost}UPDATE checkpoint SET position = position - 3".encode())
    async with running(made, NEW, made.position):
        await eventually(is_stored(made, NEW), "the new version is live")
        await made.running()
        await made.caught_up()
        await sound(made, NEW)
    assert (before["events"] == (await relations(made))["events"]) == (lost == "")


def test_versions_say_who_is_newer() -> None:
    mine = {"vms": 5, "events": 5}
    assert standing(None, mine) is Standing.MISSING
    assert standing({"": 4}, mine) is Standing.OLDER
    assert standing({"vms": 5}, mine) is Standing.OLDER
    assert standing({"vms": 4, "events": 5}, mine) is Standing.OLDER
    assert standing(dict(mine), mine) is Standing.SAME
    assert standing({"vms": 6, "events": 5}, mine) is Standing.NEWER
    assert standing({"vms": 6, "events": 4}, mine) is Standing.NEWER
    assert standing({**mine, "quotas": 1}, mine) is Standing.NEWER
