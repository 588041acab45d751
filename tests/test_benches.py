"""A benchmark that is stopped leaves nothing, and what a killed one leaves is removed at the next start."""

import asyncio
import signal
import sys
from pathlib import Path

import libvirt
import pytest

from bench import bursts, fleet, fleet_parts, homes, page, page_list, rounds, run, terminals, usage, watchers
from bench.cloud import Cloud
from bench.fleet_parts import ROLES
from bench.scale import rest
from runtime.local.child import ServerError, spawn
from tests.console.bed import browser, needs_browser
from tests.processes import alive
from tests.waiting import eventually

#: No process has this id: it is greater than the greatest one.
ENDED = 2**22 + 1
BENCHMARK = """
import pathlib, sys
from bench import __main__, homes
homes.BASE = pathlib.Path(sys.argv.pop())
sys.exit(__main__.main())
"""
DOMAIN = """<domain type='test'>
  <name>{name}</name><memory>1024</memory><os><type>hvm</type></os>
  <devices><disk type='file'><source file='{disk}'/><target dev='vda'/></disk></devices>
</domain>"""


@pytest.fixture
def base(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of homes, for these tests alone."""
    monkeypatch.setattr(homes, "BASE", open_folder)
    return open_folder


async def benchmark(base: Path) -> tuple[asyncio.subprocess.Process, Path, int]:
    """A benchmark that is running: its process, its folder, and the process id of its server."""
    command = [sys.executable, "-c", BENCHMARK, "append", str(base)]
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True)

    def started() -> tuple[Path, int] | None:
        for file in base.glob(f"nebula-bench-{process.pid}-*/nats.pid"):
            if text := file.read_text():
                return file.parent, int(text)
        return None

    folder, server = await eventually(started, "its server runs")
    return process, folder, server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_one_that_is_stopped_leaves_nothing(base: Path, number: signal.Signals) -> None:
    process, folder, server = await benchmark(base)
    process.send_signal(number)
    assert await process.wait() == 128 + number
    assert not folder.exists()
    assert not alive(server)


async def test_one_that_is_killed_leaves_no_process_and_the_next_start_removes_its_folder(base: Path) -> None:
    process, folder, server = await benchmark(base)
    homes.remove_leftovers()
    assert folder.exists()
    process.kill()
    await process.wait()
    await eventually(lambda: not alive(server), "its server has ended")
    assert folder.exists()
    homes.remove_leftovers()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["nebula-bench-2_6_xeqc", "nebula-bench-1-a", "nebula-4194305", "pg-4194305-a"])
def test_other_folders_are_no_leftovers(name: str) -> None:
    assert not homes.is_leftover(Path("/var/tmp", name))


def test_guests_are_removed_by_the_folder_of_their_files() -> None:
    """Defined or transient, running or off. The guests of others stay."""
    connection = libvirt.open("test:///default")
    before = {domain.name() for domain in connection.listAllDomains()}
    folder = homes.BASE / f"nebula-bench-{ENDED}-aaaa"
    connection.defineXML(DOMAIN.format(name="off", disk=folder / "off.qcow2"))
    connection.defineXML(DOMAIN.format(name="running", disk=folder / "node" / "running.qcow2")).create()
    connection.createXML(DOMAIN.format(name="bare-1", disk=folder / "bare-1.qcow2"))
    connection.defineXML(DOMAIN.format(name="other", disk=f"{folder}b/other.qcow2"))
    try:
        homes.remove_guests(connection, [folder])
        assert {domain.name() for domain in connection.listAllDomains()} == {*before, "other"}
    finally:
        connection.lookupByName("other").undefine()
        connection.close()


def test_the_folder_of_a_node_stays_while_its_guests_cannot_be_removed(base: Path) -> None:
    folder = base / f"nebula-bench-{ENDED}-aaaa"
    (folder / "node").mkdir(parents=True)
    homes.remove_leftovers("qemu+unix:///system?socket=/nowhere")
    assert folder.exists()
    homes.remove_leftovers("test:///default")
    assert not folder.exists()


def test_the_slope_is_that_of_a_line() -> None:
    assert rounds.slope([10.0, 11.0, 12.0, 13.0]) == 0.1
    assert rounds.slope([5.0, 5.0, 5.0]) == 0.0
    assert rounds.slope([7.0]) == 0.0
    assert rounds.growth([10.0, 11.0, 12.0, 13.0]) == 1.3
    assert rounds.growth([5.0, 5.0, 5.0]) == rounds.growth([7.0]) == 1.0


async def test_a_wait_without_progress_ends_and_says_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_parts, "PATIENCE", 0.3)
    monkeypatch.setattr(fleet_parts, "TELL", 0.0)
    numbers = iter((1, 2))

    async def stuck() -> int:
        return next(numbers, 3)

    with pytest.raises(RuntimeError, match=r"^3 of 5 nodes are registered after \d+ s, and no more"):
        await fleet_parts.until(stuck, 5, "nodes are registered")


async def test_a_process_that_ends_meanwhile_is_named(tmp_path: Path) -> None:
    child = await spawn("handlers", ["sh", "-c", "echo broken; exit 3"], tmp_path / "log")
    await child.process.wait()
    made = Cloud(tmp_path, "", 0, {"handlers": child})

    async def none() -> int:
        return 0

    with pytest.raises(ServerError, match=r"handlers ended while 0 of 5 VMs run.*broken"):
        await fleet_parts.until(none, 5, "VMs run", made)


async def test_a_few_rounds_and_a_small_fleet() -> None:
    found = await rounds.measure(vms=6, rounds=2, nodes=2, rest=1)
    assert len(found["cpu_ms_per_vm"]) == 2 and all(value > 0 for value in found["cpu_ms_per_vm"])
    assert found["cores_at_rest_by_role"].keys() == {*ROLES, "simulation", "nats", "postgres"}
    found = await fleet.measure(nodes=3, vms=6, rest=1)
    assert found["events_at_rest"] == 0 and found["running_per_second"] > 0
    assert 0 < found["first_lost_seconds"] <= found["all_lost_seconds"]


async def test_the_memory_of_all_roles_is_shared() -> None:
    found = await rest.measure(0, None)
    parts = [found[f"{role}_mib"] for role in (*rest.ROLES, "forks")]
    assert sum(parts) == pytest.approx(found["roles_mib"], abs=0.5)
    assert found["anonymous_mib"] <= found["roles_mib"] < 220, found


async def test_a_few_creates_until_they_run() -> None:
    found = await run.measure(vms=6, part=3, nodes=2, rest=1)
    assert found["running_per_second"] > 0 and found["raw_publishes_per_second"] > 0 and found["growth"] > 0
    assert found["cpu_ms_per_vm_by_role"].keys() == {*ROLES, "simulation", "nats", "postgres"}


async def test_small_bursts() -> None:
    found = await bursts.measure(few=4, many=6, nodes=2)
    scenes = ("trickle", "creates", "many_creates", "stops", "starts", "burst_on_a_trickle", "deletes")
    operations = {name: found[name]["operations"] for name in scenes}
    assert operations == {**dict.fromkeys(scenes, 4), "many_creates": 6, "burst_on_a_trickle": 8, "deletes": 6}
    for name in scenes:
        assert found[name]["events"] > found[name]["operations"]
        assert 0 < found[name]["read_model"]["p50"] <= found[name]["read_model"]["max"]
    assert found["worst_read_model_p99"] == max(found[name]["read_model"]["p99"] for name in scenes)


async def test_the_usage_of_a_few_guests() -> None:
    found = await usage.measure(vms=5, rounds=2)
    for name in ("simulated", "libvirt_test"):
        assert found[f"{name}_floor_ms"] > 0 and 0 < found[f"{name}_cores"] < 1
        assert found[f"{name}_file_mib"] > 0


def test_an_event_is_shown_with_the_first_notice_at_or_after_it() -> None:
    heard = bursts.Heard(positions=[3, 7], moved=[1.0, 2.0])
    assert [heard.shown(position) for position in (3, 4, 7, 8)] == [1.0, 2.0, 2.0, None]


@needs_browser
async def test_the_first_page_is_small() -> None:
    """The budget of bytes, and that events are seen; times are for a quiet machine."""
    found = await page.measure(opens=2, events=3, vms=0)
    assert 20 < found["first_kib"] <= 300
    assert found["first_ms"] > 0 and found["seen_ms_p95"] > 0


@needs_browser
async def test_a_list_that_is_scrolled_and_changes(tmp_path: Path) -> None:
    """Its figures are there; the times are for a quiet machine."""
    async with browser() as chromium:
        found = await page_list.measure(chromium, vms=300, seconds=1.0, rate=20.0, home=tmp_path)
    assert 200 < found["vms"] <= 300
    assert 20 < found["rows"] <= 80
    assert found["storm_rate"] > 0 and found["read_ms"] > 0 and found["longest_ms"] < 1000


async def test_a_few_watchers() -> None:
    found = await watchers.measure(feeds=3, rates=[5.0], seconds=1.0)
    assert found["feeds"] == 3
    assert 0 < found["rate_5"]["delay_p50_ms"] <= found["rate_5"]["delay_p95_ms"]


async def test_a_few_consoles() -> None:
    found = await terminals.measure(count=4, rounds=2, seconds=0.2)
    assert found["count"] == 4 and found["goal_mib"] == 1.2
    assert 0 < found["rtt_ms_p50"] <= found["rtt_ms_p95"]
    assert found["memory_kib_per_console"] < 3000
