"""The runner on a real log and a real Postgres: nothing twice, nothing missed, whatever is killed."""

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from domain import vm
from domain.contract import Power
from eventstore.log.envelope import Recorded, Ref
from projections import aggregates, bulk, database, events, operation_rows, rebuild
from projections.books import judged
from projections.database import Pool
from projections.operation_rows import OperationView
from projections.position import Position
from projections.runner import Runner
from projections.transaction import OutOfOrder, Overtaken, apply, ordered
from projections.vms import VMS
from runtime import subjects
from runtime.local.servers import Postgres, start_nats, start_postgres
from tests.projections.cloud import Cloud, cloud, projected
from tests.waiting import eventually


@pytest.fixture
async def made(tmp_path: Path, postgres: Postgres) -> AsyncIterator[tuple[Cloud, Pool]]:
    async with projected(tmp_path, postgres) as both:
        yield both


@pytest.fixture(scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[tuple[Cloud, Pool]]:
    """Shared by tests that leave all as replayed."""
    async with projected(tmp_path_factory.mktemp("runner"), postgres) as made:
        yield made


async def operation(pool: Pool, id_: str) -> OperationView:
    found, _ = await operation_rows.get(pool, id_, mine=None)
    assert found is not None
    return found


async def test_a_vms_life_in_rows(made: tuple[Cloud, Pool]) -> None:
    cloud, pool = made
    ref = await cloud.running(tags=("blue",))
    stop = await cloud.ask(ref, vm.StopVm)
    await cloud.caught_up()
    row, _ = await aggregates.get(pool, VMS, ref, mine=None)
    assert row is not None
    shown = VMS.shown(row)
    assert (shown["phase"], shown["node"], shown["addresses"]) == ("running", "host-1", ["192.0.2.10"])
    assert shown["pending"] is not None and shown["pending"]["operation"] == stop
    assert shown["version"] == 4

    await cloud.report(ref, Power.OFF)
    await cloud.ask(ref, vm.DeleteVm)
    await cloud.report(ref, Power.ABSENT)
    await cloud.caught_up()
    row, _ = await aggregates.get(pool, VMS, ref, mine=None)
    assert row is not None
    assert row.deleted
    ended = await operation(pool, stop)
    assert ended["status"] == "succeeded"
    assert [step["type"] for step in ended["events"]] == ["nebula.vm.VmStopRequested", "nebula.vm.VmStopped"]


async def test_an_overtaken_operation_is_cancelled(made: tuple[Cloud, Pool]) -> None:
    cloud, pool = made
    ref = await cloud.running()
    stop = await cloud.ask(ref, vm.StopVm)
    delete = await cloud.ask(ref, vm.DeleteVm)
    await cloud.caught_up()
    assert (await operation(pool, stop))["status"] == "cancelled"
    assert (await operation(pool, delete))["status"] == "accepted"


async def test_events_keep_their_digests(made: tuple[Cloud, Pool]) -> None:
    cloud, pool = made
    ref = await cloud.running()
    await cloud.caught_up()
    found, following, position = await events.page(pool, {"vm": ref.id}, 0, 10, mine=None)
    told = await cloud.store.history(ref)
    assert [e.cloud_event() for e in found] == [e.cloud_event() for e in told]
    assert following is None
    assert position == await cloud.store.last_position()


async def no_park(messages: Sequence[tuple[Recorded, str]]) -> None:
    assert not messages


@pytest.mark.parametrize("many", [False, True], ids=["in a pipeline", "copied"])
async def test_a_runner_that_was_overtaken_writes_nothing(
    made: tuple[Cloud, Pool], many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, pool = made
    monkeypatch.setattr(bulk, "COPIED", 16)
    for _ in range(6):
        await cloud.running()
    await cloud.caught_up()
    log = await cloud.store.read(0)
    rest = log[5:] if many else log[-2:]
    assert (len(rest) >= bulk.COPIED) == many
    end = log[-1].position
    async with await database.connect(cloud.dsn, "test") as conn:
        with pytest.raises(Overtaken):
            await apply(conn, cloud.vault, rest[0].position - 1, [judged(each) for each in rest], park=no_park)
        assert await database.checkpoint(conn) == end
    await cloud.running()
    await cloud.caught_up()
    found, _, _ = await events.page(pool, {}, 0, 1000, mine=None)
    assert [each.position for each in found] == [each.position for each in await cloud.store.read(0)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE checkpoint SET position = 0",
        "UPDATE checkpoint SET position = position - 3",
        "UPDATE checkpoint SET position = position + 2",
        "UPDATE checkpoint SET position = 9000000000000000000",
        "DELETE FROM checkpoint",
    ],
)
async def test_a_checkpoint_that_was_changed_by_hand_costs_no_event(change: str, both: tuple[Cloud, Pool]) -> None:
    """Nothing is taken in twice or left out, and no good event is parked."""
    cloud, _ = both
    ref = await cloud.running()
    await cloud.caught_up()
    async with await database.connect(cloud.dsn, "test") as conn:
        await conn.execute(change)
    await cloud.ask(ref, vm.StopVm)
    await cloud.running()
    end = await cloud.store.last_position()

    async def reached() -> bool:
        async with await database.connect(cloud.dsn, "test") as conn:
            return await database.checkpoint(conn) == end

    await eventually(reached, "all is taken in")
    assert (await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault)).tables == ()
    assert (await cloud.nc.jetstream().stream_info(subjects.PARKED)).state.messages == 0


async def test_nul_characters_stop_nothing(made: tuple[Cloud, Pool]) -> None:
    cloud, pool = made
    ref = await cloud.create(ssh_keys=("ssh-ed25519 AAAA a\0b",))
    await cloud.place(ref)
    await cloud.caught_up()
    row, _ = await aggregates.get(pool, VMS, ref, mine=None)
    assert row is not None
    assert row.state.ssh_keys == ("ssh-ed25519 AAAA a�b",)


async def test_messages_that_are_no_events_are_audited(made: tuple[Cloud, Pool]) -> None:
    cloud, pool = made
    js = cloud.nc.jetstream()
    subject = subjects.event("default", "vm", str(uuid.uuid4()))
    await js.publish(subject, b"\xff\xfe", headers={"ce-type": "nebula.vm.VmRequested"})
    unknown = Ref("default", "vm", str(uuid.uuid4()))
    headers = {"ce-type": "nebula.vm.VmSang", "ce-aggregateversion": "1", "ce-prevhash": "0" * 64}
    await js.publish(unknown.subject, b'{"song": "x"}', headers=headers)
    ref = await cloud.create()
    await cloud.caught_up()
    assert (await aggregates.get(pool, VMS, ref, mine=None))[0] is not None
    found, _, _ = await events.page(pool, {"id": unknown.id}, 0, 10, mine=None)
    assert [e.type for e in found] == ["nebula.vm.VmSang"]


def test_positions_have_to_rise() -> None:
    def at(position: int) -> Recorded:
        return Recorded(position, "nebula.events.a.vm.b", {}, b"", datetime.now(UTC))

    assert ordered(1, [at(2), at(3)]) == 3
    with pytest.raises(OutOfOrder):
        ordered(1, [at(2), at(2)])


async def test_killed_at_any_point_it_goes_on_exactly(tmp_path: Path, postgres: Postgres) -> None:
    async with cloud(tmp_path, postgres) as made:
        await made.furnish()
        command = [
            sys.executable,
            "-m",
            "tests.projections.worker",
            made.nats.url,
            made.dsn,
            str(tmp_path / "master.key"),
        ]

        async def write() -> None:
            while not enough.is_set():
                await made.running()

        async def reached() -> int:
            async with await database.connect(made.dsn, "test") as conn:
                cursor = await conn.execute("SELECT to_regclass('checkpoint') AS made")
                row = await cursor.fetchone()
                return await database.checkpoint(conn) if row and row["made"] else 0

        enough = asyncio.Event()
        writing = asyncio.create_task(write())
        before = 0
        for pause in (0.0, 0.003, 0.006, 0.009, 0.02):
            process = await asyncio.create_subprocess_exec(*command)

            async def moved(before: int = before) -> bool:
                return await reached() > before

            await eventually(moved, "the checkpoint moves")
            await asyncio.sleep(pause)
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            before = await reached()
        enough.set()
        await writing
        runner = asyncio.create_task(made.runner().run())
        await made.caught_up()
        runner.cancel()
        end = await made.store.last_position()
        report = await rebuild.verify(made.nc, made.dsn, made.vault)
        assert (report.position, report.differing) == (end, ())
        async with await database.connect(made.dsn, "test", "nebula") as conn:
            cursor = await conn.execute("SELECT count(*) AS n, max(position) AS last FROM events")
            assert await cursor.fetchone() == {"n": end, "last": end}


async def test_what_differs_is_found_and_rebuilt(made: tuple[Cloud, Pool]) -> None:
    cloud, pool = made
    ref = await cloud.running()
    await cloud.caught_up()
    assert (await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault)).differing == ()
    async with await database.connect(cloud.dsn, "test") as conn:
        await conn.execute("UPDATE vms SET phase = 'stopped'")
        await conn.execute("DELETE FROM operations")
    assert (await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault)).differing == ("vms", "operations")
    position = await rebuild.rebuild(cloud.nc, cloud.dsn, cloud.vault)
    assert position == await cloud.store.last_position()
    assert (await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault)).differing == ()
    await cloud.ask(ref, vm.StopVm)  # the runner goes on with the new rows
    await cloud.caught_up()
    row, _ = await aggregates.get(pool, VMS, ref, mine=None)
    assert row is not None
    assert row.state.pending is not None
    assert row.state.pending.verb == "stop"


async def test_postgres_may_go_and_come_back(tmp_path: Path, servers_home: Path) -> None:
    home = servers_home / f"own-{uuid.uuid4().hex[:8]}"
    own = await start_postgres(home, durable=False)
    try:
        async with projected(tmp_path, own) as (made, pool):
            await own.kill()
            ref = await made.running()
            own = await start_postgres(home, port=own.port, durable=False)
            await made.caught_up()
            assert (await aggregates.get(pool, VMS, ref, mine=None))[0] is not None
    finally:
        await own.stop()


async def test_the_bus_may_go_and_come_back(tmp_path: Path, postgres: Postgres) -> None:
    async with AsyncExitStack() as servers, projected(tmp_path, postgres) as (made, pool):
        await made.nats.kill()
        restarted = await start_nats(tmp_path, port=made.nats.port)
        servers.push_async_callback(restarted.stop)

        async def back() -> bool:
            return made.nc.is_connected

        await eventually(back, "bus is back")
        ref = await made.running()
        await made.caught_up()
        assert (await aggregates.get(pool, VMS, ref, mine=None))[0] is not None


async def test_a_second_runner_stands_by_and_takes_over(tmp_path: Path, postgres: Postgres) -> None:
    async with cloud(tmp_path, postgres) as made:
        await made.furnish()
        first = asyncio.create_task(made.runner().run())
        await made.caught_up()
        second_position = Position()
        second = asyncio.create_task(Runner(made.nc, made.dsn, made.vault, second_position).run())
        await made.running()
        await made.caught_up()
        assert second_position.value == 0
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await second_position.reach(await made.store.last_position(), 30)
        second.cancel()
