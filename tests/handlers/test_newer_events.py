"""Handlers beside those of a newer version: they leave resources alone whose events they do not know, and say so."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from domain import base
from domain.base import Event
from domain.contract import Power
from domain.vm.kind import VM
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import Change
from runtime import subjects
from tests.handlers.deciders import deciding
from tests.handlers.platform import WriteSide, write_side
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def known_here() -> Iterator[None]:
    """A type of the newer version: the process of the tests knows it, and processes that it starts do not."""
    yield
    base._EVENT_TYPES.pop("nebula.vm.VmMoved", None)


def moved(vm: str) -> Event:
    class VmMoved(Event):
        TOPIC = "nebula.vm.VmMoved"
        vm: str

    return VmMoved(vm=vm)


@pytest.fixture
async def side(servers_home: Path) -> AsyncIterator[WriteSide]:
    async with write_side(servers_home / "newer-events", NEBULA_NODE_TIMEOUT="3600") as made:
        await made.start()
        await made.cloud()
        await made.node("host-1", vcpus=100, memory_mib=10**6)
        yield made


async def placed(side: WriteSide) -> str:
    vm = str(uuid.uuid4())
    await side.ok("default", "vm", "create", side.vm_args(vm))
    await eventually(lambda: side.wanted(vm), "placed, and told its node")
    return vm


async def test_a_resource_with_an_event_of_a_newer_version_is_left_alone(side: WriteSide) -> None:
    newer, other = await placed(side), await placed(side)
    said: list[str] = []

    async def hear(msg: Msg) -> None:
        said.append(json.loads(msg.data)["last_error"] or "")

    await side.nc.subscribe(subjects.STATUS_OF_ALL, cb=hear)
    ref = Ref("default", "vm", newer)
    tip = (await side.store.load(ref, VM.evolve)).tip
    (appended,) = await side.store.append([Change(tip, [moved(newer)])], Context("system:tests"))
    document = await side.wanted(newer)
    assert document is not None

    await side.report(document, Power.ON, boots=1)
    for verb in ("stop", "stop", "start"):
        answer = await side.ask("default", "vm", verb, {"vm": newer})
        assert (answer["problem"]["status"], answer["problem"]["code"]) == (503, "newer_version"), answer
    assert "ok" in await side.ask("default", "vm", "tag", {"vm": other, "tags": []}), "others go on"
    await eventually(lambda: any("nebula.vm.VmMoved" in each for each in said), "its status says so")
    await asyncio.sleep(1.5)  # in which the report comes again
    assert (await side.events("default", "vm", newer))[-1].position == appended.position
    assert await side.wanted(newer) == document

    async with deciding(side.nats.url, side.home):  # of the newer version
        assert "ok" in await side.decided("default", "vm", "tag", {"vm": newer, "tags": []})
