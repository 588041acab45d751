"""The past gives way to the present, and whatever happens to it does not touch the present."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from projections import copies, database, rebuild
from projections.activity import Activity
from projections.past import keeper as keeping, turns
from projections.past.build import BuildFailed
from projections.past.keeper import Keeper
from projections.past.models import PAST
from projections.past.turns import Turns
from projections.position import Position
from projections.runner import Runner
from runtime.local.servers import Postgres
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import end
from tests.projections.cloud import Cloud, cloud, projected
from tests.waiting import eventually


@pytest.fixture
async def made(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Cloud]:
    async with projected(tmp_path, postgres) as (one, _):
        yield one


@pytest.fixture
async def one(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Cloud]:
    async with cloud(tmp_path, postgres) as made:
        await made.furnish()
        yield made


@asynccontextmanager
async def kept(made: Cloud, **more: object) -> AsyncIterator[tuple[Runner, Keeper]]:
    """A process that keeps the present and the past."""
    runner = made.runner()
    past = Keeper(made.nc, made.dsn, runner, **more)  # type: ignore[arg-type]
    running = [asyncio.create_task(each.run()) for each in (runner, past)]
    try:
        yield runner, past
    finally:
        await end(running)


async def proved(made: Cloud) -> None:
    found = await rebuild.verify(made.nc, made.dsn, made.vault, shelf=PAST)
    assert found.differing == ()
    assert found.position == await made.store.last_position()
    assert found.rows > found.position


async def test_the_past_follows_and_is_proved_by_a_replay(made: Cloud) -> None:
    ref = await made.running()
    await made.past_caught_up()
    await proved(made)
    async with await database.connect(made.dsn, "test", PAST.schema) as conn:
        await conn.execute("UPDATE past_vms SET shown = '{}' WHERE id = %s AND version = 2", [ref.id])
    found = await rebuild.verify(made.nc, made.dsn, made.vault, shelf=PAST)
    assert found.differing == ("past_vms",)
    assert found.tables[0].rows[0].columns == ("shown",)
    await rebuild.rebuild(made.nc, made.dsn, made.vault, shelf=PAST)
    await proved(made)
    await made.running()
    await made.past_caught_up()
    await proved(made)


async def test_nothing_is_applied_while_the_present_is_busy(one: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    present, activity = Position(), Activity()
    source = Turns(one.nc, present, activity)
    last = await one.store.last_position()
    messages = source.messages(0)
    activity.works()
    present.set(last)
    waiting = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(4 * turns.QUIET)
    assert not waiting.done()
    activity.rests()
    batch = await asyncio.wait_for(waiting, 30)
    assert [each.position for each, _ in batch] == list(range(1, last + 1))
    assert activity.quiet >= turns.QUIET
    # The present is never quiet: the past waits until it is late, and not until then.
    now = 1000.0
    monkeypatch.setattr(turns, "monotonic", lambda: now)
    monkeypatch.setattr(Activity, "quiet", 0.0)
    await one.create()
    present.set(await one.store.last_position())
    waiting = asyncio.ensure_future(anext(messages))
    for seconds in (0.0, turns.LATEST / 2, turns.LATEST - 0.1):
        now = 1000.0 + seconds
        await asyncio.sleep(0.1)
        assert not waiting.done(), seconds
    activity.works()
    now = 1000.0 + turns.LATEST
    await asyncio.sleep(0.1)
    assert not waiting.done(), "the present is in the middle of a batch"
    activity.rests()
    batch = await asyncio.wait_for(waiting, 30)
    assert [each.position for each, _ in batch] == [last + 1]
    await messages.aclose()


async def test_nothing_is_read_that_the_present_has_not_applied(one: Cloud) -> None:
    present, activity = Position(), Activity()
    messages = Turns(one.nc, present, activity).messages(0)
    present.set(2)
    batch = await asyncio.wait_for(anext(messages), 30)
    assert [each.position for each, _ in batch] == [1, 2]
    waiting = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(4 * turns.QUIET)
    assert not waiting.done()
    await end([waiting])


async def test_a_slice_is_bounded(one: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE", 2)
    present, last = Position(), await one.store.last_position()
    present.set(last)
    messages = Turns(one.nc, present, Activity()).messages(0)
    sizes = [len(await anext(messages)) for _ in range(last // 2)]
    assert sizes == [2] * (last // 2)
    monkeypatch.setattr(turns, "FAR", 1)
    again = Turns(one.nc, present, Activity()).messages(0)
    assert len(await anext(again)) == last


DROPPED = f"DROP SCHEMA {PAST.schema} CASCADE"
KILLED = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND datname = current_database()"""


async def test_a_past_that_never_was_can_be_built_by_hand(one: Cloud) -> None:
    assert not await rebuild.is_made(one.dsn, PAST)
    await rebuild.rebuild(one.nc, one.dsn, one.vault, shelf=PAST)
    assert await rebuild.is_made(one.dsn, PAST)
    await proved(one)


@pytest.mark.parametrize("statement", [DROPPED, f"DROP TABLE {PAST.schema}.past_vms", KILLED])
async def test_a_past_that_breaks_does_not_stop_the_present(
    made: Cloud, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "RETRY", Backoff(first=0.1, last=0.5))
    await made.running()
    await made.past_caught_up()
    async with await database.connect(made.dsn, "test") as conn:
        await conn.execute(statement.encode())
    await made.running()
    await made.caught_up()
    assert made.past is not None
    if statement == DROPPED:
        await eventually(lambda: made.past is not None and made.past.position.value == made.position.value, "again")
        await proved(made)
    elif statement == KILLED:
        await made.past_caught_up()
        await proved(made)
    else:
        await eventually(lambda: made.past is not None and made.past.status().last_error, "it says what is wrong")
        await made.running()
        await made.caught_up()
        await rebuild.rebuild(made.nc, made.dsn, made.vault, shelf=PAST)
        await made.past_caught_up()
        await proved(made)
        assert made.past.status().failing_since is None


async def test_a_bug_of_the_past_does_not_stop_the_present(made: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "RETRY", Backoff(first=0.1, last=0.5))
    await made.past_caught_up()
    with monkeypatch.context() as patched:

        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        patched.setattr(turns, "judged", broken)
        await made.running()
        await made.caught_up()
        await eventually(lambda: made.past and made.past.status().last_error, "it says what is wrong")
    await made.past_caught_up()
    await proved(made)


async def test_only_the_process_that_keeps_the_present_keeps_the_past(one: Cloud) -> None:
    async with kept(one) as (first, past):
        await one.caught_up()
        assert await past.position.reach(one.position.value, 30)
        other = Position()
        standing_by = Runner(one.nc, one.dsn, one.vault, other)
        second = Keeper(one.nc, one.dsn, standing_by)
        running = [asyncio.create_task(each.run()) for each in (standing_by, second)]
        await one.running()
        assert await past.position.reach(await one.caught_up(), 30)
        assert (other.value, second.position.value) == (0, 0)
        assert first.activity.following.is_set()
        first.activity.ends()  # as if its session had ended
        first.activity.following.clear()
        await end(running)


async def test_a_new_version_is_built_in_another_process(one: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    async def build() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise BuildFailed("status 1")
        position = Position()
        await Runner(one.nc, one.dsn, one.vault, position, PAST.models, parks=False, schema=PAST.schema).build()

    monkeypatch.setattr(keeping, "RETRY", Backoff(first=0.1, last=0.5))
    async with kept(one) as (_, past):
        assert await past.position.reach(await one.caught_up(), 30)
    async with await database.connect(one.dsn, "test") as conn:
        await conn.execute(f"UPDATE {PAST.schema}.schema_version SET version = version - 1 WHERE model = 'past_vms'")
    monkeypatch.setattr(keeping, "REPLACED", 1)
    await one.running()
    async with kept(one, build=build) as (_, past):
        await one.caught_up()
        await eventually(lambda: past.position.value == one.position.value, "the past is of the new version")
        assert past.status().last_error is None
    assert len(calls) == 2
    async with await database.connect(one.dsn, "test", PAST.schema) as conn:
        assert await copies.stored_versions(conn, PAST.schema) == {each.name: each.version for each in PAST.models}
    await proved(one)


def environment(made: Cloud) -> dict[str, str]:
    return {
        **os.environ,
        "NEBULA_NATS_URL": made.nats.url,
        "NEBULA_POSTGRES_DSN": made.dsn,
        "NEBULA_HOME": str(made.home),
    }


async def child(made: Cloud) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "projections.past.build"]
    return await asyncio.create_subprocess_exec(*command, env=environment(made), stdin=-1)


async def test_the_process_that_builds_can_be_killed(one: Cloud) -> None:
    for number in range(20):
        await one.running(name=f"web-{number}")
    for seconds in (0.6, 1.0, 1.4):
        process = await child(one)
        await asyncio.sleep(seconds)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
    process = await child(one)
    assert await process.wait() == 0
    await proved(one)


async def test_the_process_that_builds_ends_with_its_parent(one: Cloud) -> None:
    async with await database.connect(one.dsn, "test") as conn:
        await database.alone(conn, PAST.schema)  # another one keeps the past: it waits
        process = await child(one)
        await asyncio.sleep(0.5)
        assert process.returncode is None
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 30) == 1
