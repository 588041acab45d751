"""What is decided of a VM while its node changes: the order in the log decides, and each decision fits the node there.

Two of handlers, each of which learns from the log what the other did (`deciders.py`).
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.base import Event
from domain.contract import NodeInfo
from domain.node import NodeLost, NodeRegistered, stored
from domain.node.kind import NODE
from domain.vm import VmRequested, VmScheduled, VmStarted
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, Conflict, Tip
from handlers.apply import now
from tests.handlers import pairs
from tests.handlers.deciders import Decider, two
from tests.handlers.pairs import CONTEXT, SPEC, HeadStart, done
from tests.handlers.platform import WriteSide

#: How many pairs there are of each kind, and how many of them are under way at a time.
PAIRS, AT_A_TIME = 60, 12
#: Where the events of each type stand that happened to a node and to a VM.
Log = dict[str, int]


@pytest.fixture(scope="module")
async def server(servers_home: Path) -> AsyncIterator[WriteSide]:
    """With what the pairs share, and no handlers but those in a test."""
    async with pairs.shared(servers_home / "races") as made:
        yield made


@pytest.fixture(scope="module")
async def deciders(server: WriteSide) -> AsyncIterator[tuple[Decider, Decider]]:
    async with two(server.nats.url, server.home) as made:
        yield made


def info(node: str, architecture: str = "x86_64") -> Any:
    said = {"vcpus": 4, "memory_mib": 4096, "disk_gib": 100, "virt_type": "test", "version": "0"}
    url = "http://192.0.2.1:8775/"
    return stored(NodeInfo(node=node, region=node, seed_url=url, architecture=architecture, **said))


def registered(node: str, *more: Event) -> Change:
    """A node in a region of its own."""
    return Change(Tip(Ref("system", "node", node)), [NodeRegistered(at=now(), info=info(node)), *more])


def vm(id_: str, node: str, *, runs: bool) -> Change:
    """A VM that waits for a place in the region of a node; or one that runs there."""
    asked = {**done(), "deadline": now() + timedelta(hours=1)}
    events: list[Event] = [
        VmRequested(**asked, vm=id_, project="shared", name="web", image="shared", spec=SPEC, region=node)
    ]
    if runs:
        place = {"at": now(), "operation": asked["operation"], "node": node, "epoch": 1}
        events.append(VmScheduled(**place, deadline=asked["deadline"], considered=()))
        events.append(VmStarted(at=now(), operation=asked["operation"], node=node, sequence=1, boots=1))
    return Change(Tip(Ref("shared", "vm", id_)), events)


async def race(
    side: WriteSide,
    deciders: tuple[Decider, Decider],
    before: Callable[[str, str], list[Change]],
    to_vm: Callable[[str], Awaitable[Any]],
    to_node: Callable[[str], Awaitable[Any]],
) -> list[tuple[Any, Log]]:
    """What was answered for each VM, and the log of it and its node, after both happened at the same time."""
    names = [(f"n-{uuid.uuid4().hex[:12]}", str(uuid.uuid4())) for _ in range(PAIRS)]
    await pairs.put_all(side, [change for node, id_ in names for change in before(node, id_)])
    last = await side.store.last_position()
    await asyncio.gather(*(decider.world.reached(last) for decider in deciders))
    slots, head_start = asyncio.Semaphore(AT_A_TIME), HeadStart()

    async def after(seconds: float, act: Awaitable[Any]) -> Any:
        await asyncio.sleep(max(0.0, seconds))
        started = time.perf_counter()
        answer = await act
        head_start.answered(time.perf_counter() - started)
        return answer

    async def one(node: str, id_: str) -> tuple[Any, Log]:
        async with slots:
            earlier = head_start.next()
            answer, _ = await asyncio.gather(after(earlier, to_vm(id_)), after(-earlier, to_node(node)))
        history = [*await side.events("system", "node", node), *await side.events("shared", "vm", id_)]
        return answer, {each.type.rsplit(".", 1)[-1]: each.position for each in history}

    return await asyncio.gather(*(one(*name) for name in names))


async def test_no_vm_is_placed_on_a_node_that_was_cordoned(
    server: WriteSide, deciders: tuple[Decider, Decider]
) -> None:
    first, _ = deciders

    async def place(id_: str) -> None:
        """As placement does: after a conflict it looks again."""
        while True:
            try:
                return await first.placer._place([id_])
            except Conflict:
                await first.world.reached(await first.store.last_position())

    async def cordon(node: str) -> None:
        await server.ok("system", "node", "cordon", {"node": node})

    def before(node: str, id_: str) -> list[Change]:
        return [registered(node), vm(id_, node, runs=False)]

    ran = await race(server, deciders, before, place, cordon)
    assert {"VmScheduled" in log for _, log in ran} == {True, False}, "nobody raced"
    for _, log in ran:
        assert ("VmScheduled" in log) == ("CapacityReserved" in log) != ("VmUnschedulable" in log), log
        assert log.get("CapacityReserved", 0) < log["NodeCordoned"], log


async def test_no_vm_is_lost_once_its_node_is_back(server: WriteSide, deciders: tuple[Decider, Decider]) -> None:
    first, second = deciders

    async def back(node: str) -> None:
        second.liveness._heard[node] = time.monotonic()
        await second.liveness._update(node)

    def before(node: str, id_: str) -> list[Change]:
        return [registered(node, NodeLost(at=now(), silent_seconds=9)), vm(id_, node, runs=True)]

    ran = await race(server, deciders, before, first.liveness._lose_vm, back)
    assert {"VmLost" in log for _, log in ran} == {True, False}, "nobody raced"
    for _, log in ran:
        assert log.get("VmLost", 0) < log["NodeRecovered"], log


async def test_no_vm_is_rebuilt_from_what_its_node_cannot_run(
    server: WriteSide, deciders: tuple[Decider, Decider]
) -> None:
    """The node comes back with CPUs of another architecture."""
    _, second = deciders

    async def rebuild(id_: str) -> Any:
        return await server.decided("shared", "vm", "rebuild", {"vm": id_})

    async def change(node: str) -> None:
        ref = Ref("system", "node", node)
        loaded = await second.store.load(ref, NODE.evolve, fresh=True)
        event = NodeRegistered(at=now(), info=info(node, "aarch64"))
        await second.store.append([Change(loaded.tip, [event])], CONTEXT)

    def before(node: str, id_: str) -> list[Change]:
        return [registered(node), vm(id_, node, runs=True)]

    ran = await race(server, deciders, before, rebuild, change)
    assert {"ok" in answer for answer, _ in ran} == {True, False}, "nobody raced"
    for answer, log in ran:
        assert ("ok" in answer) == ("VmRebuildRequested" in log), (answer, log)
        assert log.get("VmRebuildRequested", 0) < log["NodeRegistered"], "the last registration is of the other CPUs"
        assert "ok" in answer or answer["problem"]["code"] == "wrong_architecture", answer
