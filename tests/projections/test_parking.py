"""What the read models cannot apply is parked before the checkpoint moves past it, whatever fails in between."""

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import errors

from domain import vm
from eventstore.log.envelope import Ref
from eventstore.log.jetstream import Unavailable
from eventstore.parking import capacity
from eventstore.parking.parking import LOG, NotParked, Parked, Parking
from projections import books, database, rebuild
from projections.database import Pool
from runtime import subjects
from runtime.local.servers import Postgres
from tests.projections.cloud import Cloud, cloud, projected
from tests.waiting import eventually

Made = tuple[Cloud, Pool]

#: A worker that is killed when a message is parked, before its transaction is committed.
KILLED = """
import asyncio, os, signal, sys
from eventstore.parking.parking import Parking
from tests.projections.worker import main

whole = Parking.park_message

async def park(self, recorded, reason):
    await whole(self, recorded, reason)
    os.kill(os.getpid(), signal.SIGKILL)

Parking.park_message = park
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def made(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Made]:
    async with projected(tmp_path, postgres) as both:
        yield both


async def stray(cloud: Cloud) -> int:
    """Lay a message that is no event into the log; its position."""
    headers = {"ce-type": "nebula.vm.VmSang", "ce-aggregateversion": "1", "ce-prevhash": "0" * 64}
    ref = Ref("default", "vm", str(uuid.uuid4()))
    return int((await cloud.nc.jetstream().publish(ref.subject, b"{}", headers=headers)).seq)


async def refused(cloud: Cloud, ref: Ref, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on Postgres takes no row of this VM."""
    whole = books.write

    async def write(session: Any, before: books.Books, after: books.Books) -> None:
        if ref in after.rows:
            raise errors.ProgramLimitExceeded("too large")
        await whole(session, before, after)

    monkeypatch.setattr(books, "write", write)


async def checkpoint(cloud: Cloud) -> int:
    async with await database.connect(cloud.dsn, "test") as conn:
        cursor = await conn.execute("SELECT to_regclass('checkpoint') AS made")
        row = await cursor.fetchone()
        return await database.checkpoint(conn) if row and row["made"] else 0


async def record(cloud: Cloud, position: int) -> Parked:
    return await Parking(cloud.nc).get(LOG, str(position))


async def records(cloud: Cloud) -> int:
    """The number of states of records, of which each parked message has one."""
    return int((await cloud.nc.jetstream().stream_info(subjects.PARKED)).state.messages)


@pytest.mark.parametrize("kind", ["malformed", "not applicable"])
async def test_the_checkpoint_waits_until_it_is_parked(made: Made, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, _ = made
    ref = await cloud.running()
    await cloud.caught_up()
    whole, tries = Parking.park_message, 0

    async def failing(*_: object) -> bool:
        nonlocal tries
        tries += 1
        raise Unavailable("the bus does not answer")

    monkeypatch.setattr(Parking, "park_message", failing)
    if kind == "malformed":
        position = await stray(cloud)
    else:
        await refused(cloud, ref, monkeypatch)
        await cloud.ask(ref, vm.StopVm)
        position = await cloud.store.last_position()
    await eventually(lambda: tries > 1, "it is tried again")
    assert cloud.position.value < position
    assert await checkpoint(cloud) < position
    monkeypatch.setattr(Parking, "park_message", whole)
    await cloud.caught_up()
    found = await record(cloud, position)
    assert found.open
    assert found.error.startswith("the read models cannot apply it: too large") == (kind != "malformed")
    await cloud.running()  # the rest goes on
    await cloud.caught_up()
    assert await records(cloud) == 1


async def test_killed_in_between_it_is_parked_once(tmp_path: Path, postgres: Postgres) -> None:
    async with cloud(tmp_path, postgres) as made:
        await made.furnish()
        position = await stray(made)
        await made.running()
        arguments = (made.nats.url, made.dsn, str(tmp_path / "master.key"))
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, *arguments)
        assert await process.wait() == -signal.SIGKILL
        before = await record(made, position)
        assert await checkpoint(made) < position
        runner = asyncio.create_task(made.runner().run())
        await made.caught_up()
        runner.cancel()
        assert await record(made, position) == before
        assert await records(made) == 1


async def test_what_has_no_room_is_counted_before_the_checkpoint_moves(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, _ = made
    monkeypatch.setattr(capacity, "MOST_OPEN", 0)
    position = await stray(cloud)
    await cloud.caught_up()
    found = await Parking(cloud.nc).get(LOG, "more")
    assert (found.count, found.position) == (1, position)


async def test_a_rebuild_parks_and_a_comparison_does_not(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebuilt copy is read by everybody; the one of a comparison is thrown away."""
    cloud, _ = made
    ref = await cloud.running()
    position = await cloud.caught_up()
    await refused(cloud, ref, monkeypatch)
    assert "vms" in (await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault)).differing
    with pytest.raises(NotParked):
        await record(cloud, position)
    await rebuild.rebuild(cloud.nc, cloud.dsn, cloud.vault)
    assert (await record(cloud, position)).open
