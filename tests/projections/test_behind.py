"""Messages that are read in long ranges and judged by another process are those of the usual way, strange ones too."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from bench.scale.logs import with_bus
from eventstore.log.keyring import Keyring
from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore
from eventstore.vault.vault import Vault
from projections import behind, database, events, rebuild
from projections.books import MODELS, Judged, judged
from projections.position import Position
from projections.prepared import Prepared
from projections.runner import Runner
from runtime import subjects
from runtime.bus.quick_client import QuickClient
from runtime.local.servers import Postgres
from runtime.tasks import workers
from runtime.tasks.tasks import end as asyncio_end
from tests.conftest import fresh_database
from tests.event_keys import KEYS, STRANGERS
from tests.integrity.logs import Log, running
from tests.integrity.test_log import with_holes
from tests.integrity.test_malformed import spoil
from tests.integrity.test_sound import Signed
from tests.projections.worker import PatientRanges
from tests.waiting import eventually

VMS = 60
IMPATIENT = behind.Ranges


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "WORTH_IT", 1)
    monkeypatch.setattr(behind, "Ranges", PatientRanges)


async def read(log: Log, keys: EventKeys) -> list[Judged]:
    end = await log.store.last_position()
    found: list[Judged] = []
    async with contextlib.aclosing(behind.messages(log.nc, 0, end, keys)) as batches:
        async for batch in batches:
            found += batch
            if found[-1][0].position >= end:
                return found
    raise AssertionError("it ended")


def everything(found: Sequence[Judged]) -> list[tuple[Any, ...]]:
    """Whatever the runner uses of each message, and its rows."""
    return [
        (
            *(one.position, one.subject, one.body, dict(one.headers), one.raw, one.stored_at, one.moment, one.digest),
            *(one.context, one.operation, verdict),
            *(events.row(one), events.row(one, stray=True)),
            events.encoded({one.position: events.Added(one, None, stray=False)}),
        )
        for one, verdict in found
    ]


@pytest.mark.parametrize("keys", [KEYS, STRANGERS])
async def test_both_ways_yield_the_same(monkeypatch: pytest.MonkeyPatch, keys: EventKeys) -> None:
    monkeypatch.setattr(behind, "SIZE", 16)
    async with running() as log:
        assert isinstance(log.nc, QuickClient)
        signed = Signed(log.home, log.server, log.nc)
        await signed.grow(100)
        await spoil(log, log.nc)
        await signed.grow(50, first=100, names=7)
        usual = [judged(one) for one in await EventStore(log.nc, keys).read(0, None, 10_000)]
        quick = await read(log, keys)
        assert everything(quick) == everything(usual)
        assert any(isinstance(one, Prepared) for one, _ in quick) == (keys is KEYS)


async def test_a_hole_is_left_to_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "SIZE", 4)
    async with running() as log:
        await log.grow(30)
        await with_holes(log, await log.all(), 11, 12)
        found = await read(log, KEYS)
        end = await log.store.last_position()
        assert [one.position for one, _ in found] == [each for each in range(1, end + 1) if each not in (11, 12)]


async def test_killed_processes_only_make_it_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "SIZE", 4)
    ask = workers.Worker.ask

    async def killed(self: workers.Worker, request: object) -> Any:
        os.kill(self.pid, signal.SIGKILL)
        return await ask(self, request)

    monkeypatch.setattr(workers.Worker, "ask", killed)
    async with running() as log:
        await log.grow(30)
        end = await log.store.last_position()
        async with asyncio.timeout(30):
            found = await read(log, KEYS)
        assert [one.position for one, _ in found] == list(range(1, end + 1))


async def test_it_does_not_wait_for_other_processes_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "Ranges", IMPATIENT)
    monkeypatch.setattr(workers.Worker, "ask", lambda *_: asyncio.Event().wait())
    async with running() as log:
        await log.grow(30)
        end = await log.store.last_position()
        async with asyncio.timeout(30):
            found = await read(log, KEYS)
        assert [one.position for one, _ in found] == list(range(1, end + 1))


def url_of(nc: Client) -> str:
    assert nc.connected_url is not None
    return nc.connected_url.geturl()


async def unvacuumed(conn: database.Connection) -> set[str]:
    """The tables of the live copy that Postgres does not vacuum."""
    cursor = await conn.execute(
        """SELECT relname FROM pg_class WHERE relnamespace = 'nebula'::regnamespace
           AND 'autovacuum_enabled=false' = ANY (reloptions)"""
    )
    return {row["relname"] for row in await cursor.fetchall()}


async def test_killed_at_any_moment_of_a_replay_it_goes_on_exactly(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between the last event and the indexes, which are created in the end. Then Postgres vacuums the tables."""
    dsn = await fresh_database(postgres)

    async def reached(least: int) -> bool:
        async with await database.connect(dsn, "test") as conn:
            cursor = await conn.execute("SELECT to_regclass('checkpoint') AS made")
            row = await cursor.fetchone()
            return bool(row and row["made"]) and await database.checkpoint(conn) >= least

    async with with_bus(VMS, tmp_path) as (nc, folder):
        end = (await nc.jetstream().stream_info(subjects.EVENTS)).state.last_seq
        files = (str(folder / "master.key"), str(folder / "event.keys"))
        command = [sys.executable, "-m", "tests.projections.worker", url_of(nc), dsn, *files]
        for share in (0, 0.2, 0.5, 0.8, 1):
            process = await asyncio.create_subprocess_exec(*command)
            await eventually(partial(reached, int(share * end)), "the checkpoint moves")
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            async with await database.connect(dsn, "test") as conn:
                if await database.checkpoint(conn) < end:  # nothing is finished before that
                    assert "events" in await unvacuumed(conn)
        keys, vault, position = Keyring(folder / "event.keys"), Vault.of(nc, folder / "master.key"), Position()
        running_on = asyncio.create_task(Runner(nc, dsn, vault, position, event_keys=keys).run())
        assert await position.reach(end, 60)
        expected = {name for model in MODELS for name in model.indexes}
        async with await database.connect(dsn, "test") as conn:

            async def indexed() -> bool:
                cursor = await conn.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'nebula'")
                return expected <= {row["indexname"] for row in await cursor.fetchall()}

            async def vacuumed() -> bool:
                return not await unvacuumed(conn)

            await eventually(indexed, "all indexes are there")
            await eventually(vacuumed, "Postgres vacuums all tables")
        await asyncio_end([running_on])
        monkeypatch.setattr(behind, "WORTH_IT", 10**6)  # the proof reads the log in the usual way
        report = await rebuild.verify(nc, dsn, vault, keys)
        assert (report.position, report.differing) == (end, ())
