"""Handlers that start from a snapshot of the world, on a real server."""

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.contract import Desired, Power, Wanted
from eventstore.log.keyring import Keyring
from handlers.world.snapshot_file import NAME, opened
from runtime import subjects
from tests.handlers.platform import WriteSide, write_side
from tests.waiting import eventually

SETTINGS = {
    "NEBULA_SNAPSHOT_EVENTS": "5",
    "NEBULA_NODE_TIMEOUT": "600",
    "NEBULA_SNAPSHOT_SHARE": "1",
    "NEBULA_LOG_FORMAT": "json",
}
READ, UNUSED, SAME = (
    "snapshot of the world read",
    "snapshot of the world not used; the whole log is read",
    "snapshot of the world is what the log says",
)


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[WriteSide]:
    async with write_side(tmp_path, **SETTINGS) as made:
        with (tmp_path / "output").open("wb") as made.output:
            yield made


def said(side: WriteSide, event: str) -> list[dict[str, Any]]:
    lines = (side.home / "output").read_text().splitlines()
    return [entry for entry in map(json.loads, filter(None, lines)) if entry["event"] == event]


async def killed(side: WriteSide) -> None:
    for process in side.processes:
        process.kill()
        await process.wait()
    side.processes.clear()


def position(side: WriteSide) -> int:
    try:
        found = opened(side.home / NAME, Keyring(side.home / "event.keys"))
    except Exception:
        return 0
    return found.header.position if found is not None else 0


async def running(side: WriteSide, vm: str) -> Wanted:
    wanted: Wanted = await eventually(lambda: side.wanted(vm), "wanted document")
    await side.report(wanted, Power.ON, boots=wanted.boots)
    await eventually(lambda: side.has("default", "vm", vm, "VmStarted"), "the VM runs")
    return wanted


async def wants(side: WriteSide, vm: str, desired: Desired) -> Wanted | None:
    found = await side.wanted(vm)
    return found if found is not None and found.desired is desired else None


async def snapshot(side: WriteSide) -> int:
    """Wait for a snapshot that is at most a few events old."""

    async def recent() -> int:
        found = position(side)
        return found if found > await side.store.last_position() - 5 else 0

    found: int = await eventually(recent, "a snapshot is written", seconds=40)
    return found


async def test_a_start_from_a_snapshot_goes_on_where_the_last_process_was(side: WriteSide) -> None:
    await side.start()
    await side.cloud()
    await side.node("n1")
    vm, other, gone, waiting = (str(uuid.uuid4()) for _ in range(4))
    operation = str(uuid.uuid4())
    created = await side.ok("default", "vm", "create", side.vm_args(vm), operation=operation)
    for each in (other, gone):
        await side.create(each)
    for each in (vm, other, gone):
        await running(side, each)
    await side.ok("default", "vm", "delete", {"vm": gone})
    await side.report(await eventually(lambda: wants(side, gone, Desired.ABSENT), "tombstone"), Power.ABSENT)
    await eventually(lambda: side.has("default", "vm", gone, "VmDeleted"), "it is deleted")
    await side.create(waiting, spec={"vcpus": 16, "memory_mib": 512, "disk_gib": 1})
    at = await snapshot(side)
    assert not said(side, READ) and not said(side, UNUSED)

    await killed(side)
    await side.start()
    assert [entry["position"] for entry in said(side, READ)] and said(side, READ)[0]["position"] >= at
    await eventually(lambda: bool(said(side, SAME)), "it was compared with the log", seconds=40)
    again = await side.ok("default", "vm", "create", side.vm_args(vm), operation=operation)
    assert again["replayed"] and not created["replayed"], "the operation is known"
    assert "problem" in await side.ask("default", "vm", "create", side.vm_args(gone)), "its id is used up"
    assert "problem" in await side.ask("system", "image", "delete", {"image": "base"}), "VMs are made of it"
    await side.heartbeat("n1")
    await side.ok("default", "vm", "stop", {"vm": vm})
    await side.report(await eventually(lambda: wants(side, vm, Desired.OFF), "wanted off"), Power.OFF)
    await eventually(lambda: side.has("default", "vm", vm, "VmStopped"), "it is stopped")
    await side.node("n2", vcpus=256, memory_mib=2**20, disk_gib=1000)
    await eventually(lambda: side.has("default", "vm", waiting, "VmScheduled"), "what waited gets a node")


async def test_a_snapshot_that_was_altered_is_not_used(side: WriteSide) -> None:
    await side.start()
    await side.cloud()
    await side.node("n1")
    vm = await side.create()
    await running(side, vm)
    await snapshot(side)
    await killed(side)
    path = side.home / NAME
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    await side.start()
    (entry,) = said(side, UNUSED)
    assert "MAC" in entry["reason"] and not said(side, READ)
    await side.heartbeat("n1")
    await side.ok("default", "vm", "stop", {"vm": vm})


async def test_a_snapshot_of_another_log_is_not_used(side: WriteSide, tmp_path: Path) -> None:
    await side.start()
    await side.cloud()
    await side.node("n1")
    await running(side, await side.create())
    await snapshot(side)
    await killed(side)
    js = side.nc.jetstream()
    await js.delete_stream(subjects.EVENTS)
    await side.start()
    (entry,) = said(side, UNUSED)
    assert "the log ends at 0" in entry["reason"]
    await side.cloud()


async def test_without_the_setting_there_is_none(side: WriteSide) -> None:
    side.settings = {**side.settings, "NEBULA_SNAPSHOT_EVENTS": "0"}
    await side.start()
    await side.cloud()
    await killed(side)
    (side.home / NAME).write_bytes(b"damaged")
    await side.start()
    assert (side.home / NAME).read_bytes() == b"damaged" and not said(side, UNUSED)
