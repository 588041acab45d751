"""The promise of a node, and the placement of its VM: two appends, with anything between them.

Two of handlers on a real log, whose placements run only where a test makes them (`deciders.py`).
"""

import asyncio
import os
import random
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.contract import NodeInfo
from domain.kinds import KINDS
from domain.node import CapacityReleased, CapacityReserved, Node, NodeRegistered, stored
from domain.vm import Phase, Vm, VmOperationTimedOut, VmRequested, VmResized, VmScheduled
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.store import Change, Conflict, Tip
from handlers.apply import now
from handlers.world.watch import Changes
from handlers.world.world import World
from tests.handlers import pairs
from tests.handlers.deciders import Decider, two
from tests.handlers.pairs import CONTEXT, SPEC, done
from tests.handlers.platform import WriteSide
from tests.waiting import eventually

EVERYTHING = Changes(frozenset(), everything=True)

#: A handlers process that dies by SIGKILL as soon as a promise is stored, before the event of its VM is sent.
DIES = """
import os, signal, sys
from handlers.managers.placement import Placer
async def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
Placer._append = die
sys.argv = ["role", "handlers"]
import runpy
runpy.run_module("cli.local.role", run_name="__main__")
"""


class Stopped(Exception):
    """The process got no further than this."""


@pytest.fixture(scope="module")
async def server(servers_home: Path) -> AsyncIterator[WriteSide]:
    async with pairs.shared(servers_home / "promises") as made:
        yield made


@pytest.fixture(scope="module")
async def deciders(server: WriteSide) -> AsyncIterator[tuple[Decider, Decider]]:
    async with two(server.nats.url, server.home) as made:
        yield made


def node_made(id_: str, region: str, memory_mib: int = 4096) -> Change:
    said = {"vcpus": 64, "memory_mib": memory_mib, "disk_gib": 1000, "virt_type": "test", "version": "0"}
    info = NodeInfo(node=id_, region=region, seed_url="http://192.0.2.1:8775/", **said)
    return Change(Tip(Ref("system", "node", id_)), [NodeRegistered(at=now(), info=stored(info))])


def vm_made(id_: str, region: str) -> Change:
    asked = {**done(), "deadline": now() + timedelta(hours=1)}
    requested = VmRequested(**asked, vm=id_, project="shared", name="web", image="shared", spec=SPEC, region=region)
    return Change(Tip(Ref("shared", "vm", id_)), [requested])


class Scene:
    """A region with two nodes, the first of which has more memory, and a VM that waits for one of them."""

    def __init__(self, side: WriteSide, deciders: tuple[Decider, Decider]) -> None:
        self.side, self.deciders = side, deciders
        region = uuid.uuid4().hex[:8]
        self.big, self.small, self.vm = f"big-{region}", f"small-{region}", str(uuid.uuid4())
        self.changes = [node_made(self.big, region, 8192), node_made(self.small, region), vm_made(self.vm, region)]

    async def begin(self) -> None:
        await pairs.put_all(self.side, self.changes)
        await self.read()

    async def read(self) -> None:
        """Both know all that is in the log."""
        last = await self.side.store.last_position()
        for decider in self.deciders:
            await decider.world.reached(last)

    async def promise(self) -> None:
        """The first process stores the promise, and gets no further."""
        placer = self.deciders[0].placer
        with pytest.MonkeyPatch.context() as patched, pytest.raises(Stopped):
            patched.setattr(placer, "_append", stop)
            await placer._place([self.vm])
        await self.read()

    async def look(self) -> None:
        """The second process takes over, and looks at everything until nothing is left to do."""
        second = self.deciders[1]
        for _ in range(3):
            await second.placer._look(EVERYTHING, second.placer.driver())
            await self.read()

    async def types(self, node: str) -> list[str]:
        return (await self.side.types("system", "node", node))[1:]

    def state(self) -> Vm:
        loaded = self.deciders[1].world.vm(self.vm)
        assert loaded is not None and loaded.state is not None
        return loaded.state

    def promised(self, node: str) -> int | None:
        """The memory that a node has promised to the VM, in MiB."""
        found = self.deciders[1].world.node(node)
        assert found is not None
        promise = found.reservations.get(self.vm)
        return promise.memory_mib if promise is not None else None

    async def command(self, kind: str, verb: str, **args: Any) -> None:
        project = "shared" if kind == "vm" else "system"
        await self.side.ok(project, kind, verb, args)
        await self.read()


async def stop(_: Sequence[Change]) -> None:
    raise Stopped


@pytest.fixture
async def scene(server: WriteSide, deciders: tuple[Decider, Decider]) -> Scene:
    made = Scene(server, deciders)
    await made.begin()
    await made.promise()
    assert made.promised(made.big) == SPEC["memory_mib"] and made.state().node is None
    assert list(deciders[1].world.unused) == [(made.vm, made.big)]
    return made


@pytest.fixture(autouse=True)
async def consistent(server: WriteSide, deciders: tuple[Decider, Decider]) -> AsyncIterator[None]:
    yield
    assert await broken(server) == []
    for decider in deciders:
        await decider.world.reached(await server.store.last_position())
        assert [vm for vm, _ in decider.world.unused if vm not in decider.world.waiting] == []


async def broken(side: WriteSide) -> list[str]:
    """Where the log breaks a rule: VMs on nodes that promise them nothing, and nodes that promise more than they have.

    Folded here, by the nodes and VMs alone.
    """
    nodes: dict[str, Node | None] = {}
    vms: dict[str, Vm | None] = {}
    wrong: list[str] = []
    position, resized = 0, ""
    while page := await side.store.read(position):
        for one in page:
            position = one.position
            if one.ref.kind == "node":
                nodes[one.ref.id] = KINDS["node"].evolve(nodes.get(one.ref.id), one.event)
                wrong += over(one, nodes[one.ref.id])
            elif one.ref.kind == "vm":
                vms[one.ref.id] = KINDS["vm"].evolve(vms.get(one.ref.id), one.event)
            of_vm = one.event.vm if isinstance(one.event, CapacityReserved | CapacityReleased) else one.ref.id
            for vm_id in {of_vm, resized}:
                vm = vms.get(vm_id)
                host = nodes[vm.node] if vm is not None and vm.node is not None else None
                if vm is None or host is None or vm.phase is Phase.DELETED:
                    continue
                promise = host.reservations.get(vm_id)
                if promise is None or (vm_id == resized and promise != vm.spec.resources()):
                    wrong.append(f"{position}: VM {vm_id} needs {vm.spec} of node {host.id}, promised: {promise}")
            resized = (
                one.ref.id if isinstance(one.event, VmResized) else ""
            )  # its promise is the next event of its batch
    return wrong


def over(one: Recorded, node: Node | None) -> list[str]:
    assert node is not None
    used = sum(each.memory_mib for each in node.reservations.values())
    return [f"{one.position}: {used} MiB of {node.id}"] if used > node.info.memory_mib else []


async def test_another_process_finishes_what_one_has_begun(scene: Scene) -> None:
    await scene.look()
    assert scene.state().node == scene.big
    assert await scene.types(scene.big) == ["CapacityReserved"] * 2, "it promises again before it places"
    assert await scene.types(scene.small) == []


async def test_a_node_that_takes_no_vms_any_more_is_left(scene: Scene) -> None:
    await scene.command("node", "cordon", node=scene.big)
    await scene.look()
    assert scene.state().node == scene.small
    assert await scene.types(scene.big) == ["CapacityReserved", "NodeCordoned", "CapacityReleased"]


async def test_a_vm_that_waits_keeps_its_promise_until_it_has_a_node(scene: Scene) -> None:
    for node in (scene.big, scene.small):
        await scene.command("node", "cordon", node=node)
    await scene.look()
    assert scene.state().phase is Phase.UNSCHEDULABLE and scene.promised(scene.big) is not None
    await scene.command("node", "uncordon", node=scene.small)
    await scene.look()
    assert (scene.state().node, scene.promised(scene.big)) == (scene.small, None)


async def test_a_vm_that_was_deleted_in_between_leaves_nothing(scene: Scene) -> None:
    await scene.command("vm", "delete", vm=scene.vm)
    await scene.look()
    assert await scene.types(scene.big) == ["CapacityReserved", "CapacityReleased"]
    assert await scene.types(scene.small) == []


async def test_a_vm_that_was_resized_in_between_gets_its_new_size(scene: Scene) -> None:
    await time_out(scene)
    await scene.command("vm", "resize", vm=scene.vm, memory_mib=1024)
    await scene.command("vm", "start", vm=scene.vm)
    await scene.look()
    assert (scene.state().node, scene.promised(scene.big)) == (scene.big, 1024)


async def test_a_vm_that_failed_in_between_holds_nothing_until_it_is_started(scene: Scene) -> None:
    await time_out(scene)
    await scene.look()
    assert await scene.types(scene.big) == ["CapacityReserved", "CapacityReleased"]
    await scene.command("vm", "start", vm=scene.vm)
    await scene.look()
    assert scene.state().node == scene.big


async def time_out(scene: Scene) -> None:
    pending = scene.state().pending
    assert pending is not None
    late = VmOperationTimedOut(at=now(), operation=pending.operation, verb="create")
    tip = scene.deciders[1].world.get(Ref("shared", "vm", scene.vm)).tip
    await scene.side.store.append([Change(tip, [late])], CONTEXT)
    await scene.read()


async def test_what_a_process_sends_long_after_it_decided_is_refused(
    server: WriteSide, deciders: tuple[Decider, Decider]
) -> None:
    """It stands still between the promise and the VM's event, and another one places the VM."""
    scene, first = Scene(server, deciders), deciders[0].placer
    await scene.begin()
    goes_on, real = asyncio.Event(), first._append

    async def late(changes: Sequence[Change]) -> None:
        await goes_on.wait()
        await real(changes)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(first, "_append", late)
        placing = asyncio.create_task(first._place([scene.vm]))
        await eventually(lambda: has_promise(scene), "the promise is stored")
        await scene.command("node", "cordon", node=scene.big)
        await scene.look()
        goes_on.set()
        with pytest.raises(Conflict):
            await placing
    await scene.look()
    assert (scene.state().node, scene.promised(scene.big)) == (scene.small, None)


async def has_promise(scene: Scene) -> bool:
    await scene.read()
    return scene.promised(scene.big) is not None


async def test_handlers_that_are_killed_between_the_two(server: WriteSide, deciders: tuple[Decider, Decider]) -> None:
    scene = Scene(server, deciders)
    env = {**os.environ, "NEBULA_HOME": str(server.home), "NEBULA_NATS_URL": server.nats.url}
    await pairs.put_all(server, scene.changes)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", DIES, env=env)
    assert await process.wait() == -signal.SIGKILL
    await scene.read()
    assert scene.promised(scene.big) is not None and scene.state().node is None
    await scene.look()
    assert scene.state().node == scene.big


async def test_two_placements_at_once_while_everything_changes(
    server: WriteSide, deciders: tuple[Decider, Decider]
) -> None:
    """Both place at the same time, without a lease. VMs are deleted, started, and nodes cordoned meanwhile."""
    region, chance = uuid.uuid4().hex[:8], random.Random(5)
    nodes = [f"n{number}-{region}" for number in range(3)]
    vms = [str(uuid.uuid4()) for _ in range(60)]
    await pairs.put_all(server, [node_made(id_, region, 8 * 512) for id_ in nodes])
    drivers = [asyncio.create_task(decider.placer.driver().run()) for decider in deciders]

    async def live(vm: str) -> None:
        await asyncio.sleep(chance.random() * 2)
        await pairs.put_all(server, [vm_made(vm, region)])
        for verb in chance.choices(["abandon", "start", "delete", "resize"], [3, 3, 3, 2], k=4):
            await asyncio.sleep(chance.random() * 0.02)
            more = {"memory_mib": 512 * chance.randint(1, 2)} if verb == "resize" else {}
            await server.decided("shared", "vm", verb, {"vm": vm, **more})

    async def change_nodes() -> None:
        while True:
            await asyncio.sleep(chance.random() * 0.05)
            await server.decided(
                "system", "node", chance.choice(["cordon", "uncordon"]), {"node": chance.choice(nodes)}
            )

    changing = asyncio.create_task(change_nodes())
    try:
        await asyncio.gather(*map(live, vms))
    finally:
        changing.cancel()
        with suppress(asyncio.CancelledError):
            await changing
    for node in nodes:
        await server.decided("system", "node", "uncordon", {"node": node})

    async def settled() -> bool:
        last = await server.store.last_position()
        await asyncio.sleep(0.3)
        worlds = [decider.world for decider in deciders]
        return last == await server.store.last_position() and all(not unneeded(world) for world in worlds)

    await eventually(settled, "nothing is left to do")
    for driver in drivers:
        driver.cancel()
    await asyncio.wait(drivers)
    placed = [
        vm for vm in vms if any(isinstance(e.event, VmScheduled) for e in await server.events("shared", "vm", vm))
    ]
    assert len(placed) > 10, "placement was busy"


def unneeded(world: World) -> list[tuple[str, str]]:
    return [(vm, node) for vm, node in world.unused if vm not in world.waiting]
