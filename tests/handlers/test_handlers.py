"""The write side on a real server: commands, placement, dispatch, reports, deadlines, liveness."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from domain import image, node
from domain.base import Resources
from domain.contract import CachedImages, Desired, Power, ReportError, UnwantedImages, Wanted
from eventstore.log.envelope import Ref
from eventstore.vault.vault import Vault
from runtime import subjects
from runtime.bus import replies
from runtime.bus.replies import Refusal
from tests.handlers.platform import WriteSide, write_side
from tests.waiting import eventually


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[WriteSide]:
    async with write_side(tmp_path) as made:
        await made.start()
        yield made


@pytest.fixture
async def cloud(side: WriteSide) -> AsyncIterator[WriteSide]:
    await side.cloud()
    await side.node("n1")
    beats = asyncio.create_task(side.heartbeats("n1"))
    yield side
    beats.cancel()


async def running(cloud: WriteSide, **more: Any) -> str:
    vm = await cloud.create(**more)
    doc = await eventually(lambda: cloud.wanted(vm), "wanted document")
    await cloud.report(doc, Power.ON, boots=doc.boots, addresses=("192.0.2.7",))
    await eventually(lambda: cloud.has("default", "vm", vm, "VmStarted"), "vm started")
    return vm


async def test_a_vm_from_request_to_nothing(cloud: WriteSide) -> None:
    vm = await running(cloud)
    assert await cloud.types("default", "vm", vm) == ["VmRequested", "VmScheduled", "VmStarted"]
    assert "CapacityReserved" in await cloud.types("system", "node", "n1")

    await cloud.ok("default", "vm", "stop", {"vm": vm})
    doc = await eventually(lambda: wants(cloud, vm, Desired.OFF), "wanted off")
    assert doc.force_after is not None
    await cloud.report(doc, Power.OFF)
    await eventually(lambda: cloud.has("default", "vm", vm, "VmStopped"), "vm stopped")

    await cloud.ok("default", "vm", "start", {"vm": vm})
    again = await eventually(lambda: booted(cloud, vm, 2), "wanted on, as a new boot")
    assert again.seed_url != doc.seed_url, "each boot has a secret of its own"
    await cloud.report(again, Power.ON, boots=2)
    await eventually(lambda: cloud.has("default", "vm", vm, "VmStarted", 2), "vm started again")

    await cloud.ok("default", "vm", "delete", {"vm": vm})
    tombstone = await eventually(lambda: wants(cloud, vm, Desired.ABSENT), "tombstone")
    await cloud.report(tombstone, Power.ABSENT)
    await eventually(lambda: cloud.has("default", "vm", vm, "VmDeleted"), "vm deleted")
    await eventually(lambda: cloud.has("system", "node", "n1", "CapacityReleased"), "capacity released")

    vault = Vault.of(cloud.nc, cloud.home / "master.key")

    async def destroyed() -> bool:
        return vm not in await vault.held()

    await eventually(destroyed, "keys destroyed")
    assert await cloud.wanted(vm) == tombstone, "it stays: a server that is killed may bring back what was dropped"
    history = await cloud.events("default", "vm", vm)
    for before, after in pairwise(history):
        assert after.previous == before.digest


async def wants(cloud: WriteSide, vm: str, desired: Desired) -> Wanted | None:
    doc = await cloud.wanted(vm)
    return doc if doc is not None and doc.desired is desired else None


async def booted(cloud: WriteSide, vm: str, boots: int) -> Wanted | None:
    """The wanted document of that boot: one wanted on may still be of the boot before."""
    doc = await wants(cloud, vm, Desired.ON)
    return doc if doc is not None and doc.boots == boots else None


async def test_no_room_is_said_and_room_is_used(cloud: WriteSide) -> None:
    big = {"vcpus": 1, "memory_mib": 4096, "disk_gib": 4}
    first = await cloud.create(spec=big)
    await eventually(lambda: cloud.has("default", "vm", first, "VmScheduled"), "n1 is full")
    vm = await cloud.create(spec=big)
    await eventually(lambda: cloud.has("default", "vm", vm, "VmUnschedulable"), "unschedulable")
    [_, deferred] = await cloud.events("default", "vm", vm)
    assert b"4096 MiB of memory requested, 0 free" in deferred.body
    await cloud.node("n2", memory_mib=200_000)
    await cloud.heartbeat("n2")
    await eventually(lambda: cloud.has("default", "vm", vm, "VmScheduled"), "placed by itself")


async def test_a_host_is_never_overcommitted_by_two_handlers(cloud: WriteSide) -> None:
    await cloud.start()
    half = {"vcpus": 1, "memory_mib": 2048, "disk_gib": 1}
    vms = await asyncio.gather(*(cloud.create(spec=half) for _ in range(6)))

    async def settled() -> bool:
        types = [await cloud.types("default", "vm", vm) for vm in vms]
        return all("VmScheduled" in t or "VmUnschedulable" in t for t in types)

    await eventually(settled, "all decided")
    placed = [vm for vm in vms if await cloud.has("default", "vm", vm, "VmScheduled")]
    reserved = [e for e in await cloud.events("system", "node", "n1") if e.type.endswith("CapacityReserved")]
    assert len(placed) == len(reserved) == 2


async def test_a_silent_node_loses_its_vms_until_it_speaks(side: WriteSide) -> None:
    await side.cloud()
    await side.node("n1")
    beats = asyncio.create_task(side.heartbeats("n1"))
    vm = await running(side)
    beats.cancel()
    await eventually(lambda: side.has("system", "node", "n1", "NodeLost"), "node lost")
    await eventually(lambda: side.has("default", "vm", vm, "VmLost"), "vm lost")
    beats = asyncio.create_task(side.heartbeats("n1"))
    await eventually(lambda: side.has("system", "node", "n1", "NodeRecovered"), "node back")
    doc = await side.wanted(vm)
    assert doc is not None
    await side.report(doc, Power.ON, boots=doc.boots)
    await eventually(lambda: side.has("default", "vm", vm, "VmStarted", 2), "vm found running")
    beats.cancel()


async def test_a_vm_on_a_lost_node_is_forgotten_until_the_node_lets_go(side: WriteSide) -> None:
    await side.cloud()
    await side.node("n1")
    beats = asyncio.create_task(side.heartbeats("n1"))
    vm = await running(side, user_data="#cloud-config\n")
    doc = await side.wanted(vm)
    assert doc is not None
    alive = await side.ask("default", "vm", "forget", {"vm": vm, "reason": "gone", "node_lost": True})
    assert alive["problem"]["code"] == "node_not_lost"
    empty = await side.ask("default", "vm", "forget", {"vm": vm, "reason": " "})
    assert (empty["problem"]["status"], empty["problem"]["field"]) == (422, "reason")
    beats.cancel()
    await eventually(lambda: side.has("default", "vm", vm, "VmLost"), "vm lost")

    operation = str(uuid.uuid4())
    await side.ok("default", "vm", "forget", {"vm": vm, "reason": "host n1 burnt down"}, operation=operation)
    side.processes[-1].kill()
    await side.processes[-1].wait()
    await side.start()
    await eventually(lambda: side.has("system", "node", "n1", "CapacityReleased"), "capacity released")

    async def buried() -> Wanted | None:
        """Before that the document says `absent` with all that it said before."""
        found = await wants(side, vm, Desired.ABSENT)
        return found if found is not None and not found.seed_url else None

    grave = await eventually(buried, "tombstone")
    assert (grave.epoch, grave.image) == (doc.epoch + 1, None)
    vault = Vault.of(side.nc, side.home / "master.key")

    async def destroyed() -> bool:
        return vm not in await vault.held()

    await eventually(destroyed, "keys destroyed")
    again = await side.ok("default", "vm", "forget", {"vm": vm, "reason": "host n1 burnt down"}, operation=operation)
    assert again["replayed"]

    await side.report(doc, Power.ON, boots=1)
    await side.report(grave, Power.ABSENT, step="remove")
    await side.judged()
    assert await wants(side, vm, Desired.ABSENT) is not None, "it stays until nothing is left"
    await side.leave("n1")
    await side.node("n1", {"boot": "c", "identity": "elsewhere"})
    await side.report(grave, Power.ABSENT)
    await side.judged()
    assert not await side.has("default", "vm", vm, "VmCleared"), "its disk lies in a folder that nobody has looked into"
    await side.leave("n1", "c")
    await side.node("n1", {"boot": "d"})
    await side.report(grave, Power.ABSENT)
    await eventually(lambda: side.has("default", "vm", vm, "VmCleared"), "the node let go")

    types = await side.types("default", "vm", vm)
    assert types == [
        *("VmRequested", "VmScheduled", "VmStarted", "VmLost", "ReferenceChecked"),
        *("VmForgotten", "VmDeleted", "VmCleared"),
    ]
    await side.stop_all()
    await side.start()
    assert await side.wanted(vm) == grave


async def test_a_deletion_that_waits_for_a_lost_node_ends_when_it_is_forgotten(side: WriteSide) -> None:
    await side.cloud()
    await side.node("n1")
    beats = asyncio.create_task(side.heartbeats("n1"))
    vm = await running(side)
    beats.cancel()
    await eventually(lambda: side.has("default", "vm", vm, "VmLost"), "vm lost")
    await side.ok("default", "vm", "delete", {"vm": vm})
    await side.ok("default", "vm", "forget", {"vm": vm, "reason": "gone"})
    assert (await side.types("default", "vm", vm))[-2:] == ["VmForgotten", "VmDeleted"]


async def test_what_failed_is_retried_and_what_waits_is_abandoned(cloud: WriteSide) -> None:
    vm = await cloud.create()
    doc = await eventually(lambda: cloud.wanted(vm), "wanted document")
    await cloud.report(doc, Power.ABSENT, error=ReportError(code="image_missing", detail="no such file"))
    await eventually(lambda: cloud.has("default", "vm", vm, "VmFailed"), "vm failed")
    await cloud.ok("default", "vm", "retry", {"vm": vm})
    await eventually(lambda: booted(cloud, vm, 2), "wanted on, as a new boot")
    await cloud.ok("default", "vm", "abandon", {"vm": vm})
    await eventually(lambda: wants(cloud, vm, Desired.OFF), "wanted off")
    refused = await cloud.ask("default", "vm", "abandon", {"vm": vm})
    assert refused["problem"]["code"] == "wrong_phase"


async def test_a_guest_that_crashed_is_started_again_by_its_policy(cloud: WriteSide) -> None:
    vm = await running(cloud, restart_policy="on-failure")
    doc = await cloud.wanted(vm)
    assert doc is not None
    await cloud.report(doc, Power.OFF, cause="crashed")
    await eventually(lambda: cloud.has("default", "vm", vm, "VmRestartScheduled"), "the restart has its time")
    cloud.processes[-1].kill()
    await cloud.processes[-1].wait()
    await cloud.start()
    again = await eventually(lambda: booted(cloud, vm, 2), "wanted on again, as a new boot")
    await cloud.report(again, Power.ON, boots=2)
    await eventually(lambda: cloud.has("default", "vm", vm, "VmStarted", 2), "vm started again")
    types = await cloud.types("default", "vm", vm)
    assert types[-4:] == ["VmStopped", "VmRestartScheduled", "VmRestartedByPolicy", "VmStarted"]
    events = await cloud.events("default", "vm", vm)
    assert events[-2].context.operation == events[-1].event.operation  # type: ignore[attr-defined]


async def test_a_rebuild_checks_its_image_and_seals_its_user_data(cloud: WriteSide) -> None:
    vm = await running(cloud)
    missing = await cloud.ask("default", "vm", "rebuild", {"vm": vm, "image": "none"})
    assert (missing["problem"]["code"], missing["problem"]["field"]) == ("image_not_found", "image")
    bad = await cloud.ask("default", "vm", "rebuild", {"vm": vm, "user_data": 7})
    assert (bad["problem"]["code"], bad["problem"]["field"]) == ("invalid_user_data", "user_data")
    nobody = await cloud.ask("default", "vm", "rebuild", {"vm": str(uuid.uuid4()), "user_data": "a"})
    assert nobody["problem"]["code"] == "vm_not_found"

    async def has_made(disk: int) -> Wanted | None:
        doc = await cloud.wanted(vm)
        return doc if doc is not None and doc.disk_made == disk else None

    before = await eventually(lambda: has_made(1), "the node is told that the disk is never to be made again")
    operation = str(uuid.uuid4())
    for _ in range(2):
        await cloud.ok(
            "default", "vm", "rebuild", {"vm": vm, "user_data": "#cloud-config\n# hush"}, operation=operation
        )
    events = await cloud.events("default", "vm", vm)
    types = [event.type.rsplit(".")[-1] for event in events[-3:]]
    assert types == ["VmStarted", "VmRebuildRequested", "ReferenceChecked"]
    assert not any(b"hush" in event.body for event in events)

    async def told() -> Wanted | None:
        doc = await cloud.wanted(vm)
        return doc if doc is not None and doc.disk == 2 else None

    doc = await eventually(told, "the node is told")
    assert (doc.boots, doc.force_after, doc.mac, doc.desired) == (2, None, before.mac, Desired.ON)
    assert doc.seed_url != before.seed_url
    await cloud.report(doc, Power.ON, boots=2)
    await eventually(lambda: cloud.has("default", "vm", vm, "VmStarted", 2), "vm started on its new disk")
    await eventually(lambda: has_made(2), "nor is the new one")


async def test_a_resize_and_its_promise_are_one(cloud: WriteSide) -> None:
    vm = await running(cloud)
    await cloud.ok("default", "vm", "resize", {"vm": vm, "memory_mib": 4096, "disk_gib": 10})
    found = (await cloud.events("system", "node", "n1"))[-1]
    assert found.type.endswith("CapacityReserved")
    assert found.event.resources == Resources(vcpus=1, memory_mib=4096, disk_gib=10)  # type: ignore[attr-defined]
    doc = await eventually(lambda: sized(cloud, vm, 4096), "the node is told")
    assert (doc.disk_gib, doc.boots) == (10, 1)

    other = await cloud.create()
    await eventually(lambda: cloud.has("default", "vm", other, "VmUnschedulable"), "no room is left")
    for asked, code, field in (
        ({"memory_mib": 4097}, "too_large", "memory_mib"),
        ({"vcpus": 17}, "too_large", "vcpus"),
        ({"disk_gib": 9}, "disk_cannot_shrink", "disk_gib"),
        ({"vcpus": 0}, "invalid_request", "vcpus"),
    ):
        refused = (await cloud.ask("default", "vm", "resize", {"vm": vm, **asked}))["problem"]
        assert (refused["code"], refused["field"], refused["status"]) == (code, field, 422)
    await cloud.ok("default", "vm", "resize", {"vm": vm, "memory_mib": 3584})
    await eventually(lambda: cloud.has("default", "vm", other, "VmScheduled"), "what was given back is used")
    full = (await cloud.ask("default", "vm", "resize", {"vm": vm, "memory_mib": 4000}))["problem"]
    assert (full["code"], full["field"], full["status"]) == ("no_room", "memory_mib", 409)
    assert full["detail"] == "416 more MiB of memory requested, 0 free on node n1; give at most 3584"


async def test_resizes_at_once_never_overcommit_a_host(cloud: WriteSide) -> None:
    vms = [await running(cloud) for _ in range(4)]
    await cloud.start()
    asked = (cloud.ask("default", "vm", "resize", {"vm": vm, "memory_mib": 1536}) for vm in vms)
    answers = await asyncio.gather(*asked)
    codes = [answer["problem"]["code"] for answer in answers if "problem" in answer]
    assert codes == ["no_room"] * 2
    promised = node.Node.reserved((await cloud.store.load(Ref("system", "node", "n1"), node.evolve)).state)  # type: ignore[arg-type]
    assert promised.memory_mib == 4096


async def sized(cloud: WriteSide, vm: str, memory_mib: int) -> Wanted | None:
    doc = await cloud.wanted(vm)
    return doc if doc is not None and doc.memory_mib == memory_mib else None


async def test_a_failure_is_told_and_a_start_leads_out(cloud: WriteSide) -> None:
    vm = await cloud.create()
    doc = await eventually(lambda: cloud.wanted(vm), "wanted document")
    await cloud.report(doc, Power.ABSENT, error=ReportError(code="image_missing", detail="no such file"))
    await eventually(lambda: cloud.has("default", "vm", vm, "VmFailed"), "vm failed")
    await cloud.ok("default", "vm", "start", {"vm": vm})
    again = await eventually(lambda: booted(cloud, vm, 2), "wanted on, as a new boot")
    await cloud.report(again, Power.ON, boots=again.boots)
    await eventually(lambda: cloud.has("default", "vm", vm, "VmStarted"), "vm started")


async def test_handlers_killed_anywhere_go_on(cloud: WriteSide) -> None:
    for _ in range(4):
        vm = await cloud.create()
        cloud.processes[-1].kill()
        await cloud.processes[-1].wait()
        await cloud.start()
        doc = await eventually(partial(cloud.wanted, vm), "wanted document")
        cloud.processes[-1].kill()
        await cloud.processes[-1].wait()
        await cloud.report(doc, Power.ON, boots=1)
        await cloud.start()
        await eventually(partial(cloud.has, "default", "vm", vm, "VmStarted"), "vm started")
        assert (await cloud.types("default", "vm", vm)).count("VmScheduled") == 1
        assert (await cloud.types("default", "vm", vm)).count("VmStarted") == 1


async def test_nodes_are_told_which_images_nobody_wants(cloud: WriteSide) -> None:
    [registered] = [
        e.event for e in await cloud.events("system", "image", "base") if e.type.endswith("ImageRegistered")
    ]
    assert isinstance(registered, image.ImageRegistered)
    there, never = registered.sha256, "f" * 64

    async def unwanted() -> set[str]:
        asked = CachedImages(node="n1", digests=(there, never))
        reply = await cloud.nc.request(subjects.cached_images("n1"), asked.model_dump_json().encode())
        return set(UnwantedImages.model_validate(replies.read(reply.data)).digests)

    assert await unwanted() == {never}
    await cloud.ok("system", "image", "delete", {"image": "base"})
    assert await unwanted() == {there, never}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (b"no json", None),
        (b'{"node": "n1"}', "digests"),
        (b'{"node": "n1", "digests": ["x"]}', "digests.0"),
        (b'{"node": "n2", "digests": []}', "node"),
    ],
)
async def test_a_question_of_a_node_that_makes_no_sense_is_refused(
    cloud: WriteSide, asked: bytes, field: str | None
) -> None:
    refused = replies.read((await cloud.nc.request(subjects.cached_images("n1"), asked)).data)
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.status, refused.field) == ("invalid_request", 422, field)


async def test_a_report_nobody_understands_is_parked(cloud: WriteSide) -> None:
    await cloud.nc.jetstream().publish("nebula.nodes.n1.reports.vm.x", b"not json")

    async def parked() -> int:
        info = await cloud.nc.jetstream().stream_info("NEBULA_PARKED")
        return info.state.messages

    assert await eventually(parked, "parked") == 1
    await running(cloud)
