"""Reports about one VM that arrive at the same time: each is decided on the state after the one before."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.contract import NodeInfo, NodeReport, Power
from domain.node import NodeLeased, NodeRegistered, stored
from domain.vm import VmRequested, VmScheduled, VmStarted
from eventstore.log.envelope import Context, Recorded, Ref
from eventstore.log.store import Change, Conflict, EventStore, Tip
from handlers.apply import now
from handlers.nodes.reports import Reports
from handlers.world.world import World
from tests.handlers import pairs
from tests.handlers.deciders import deciding
from tests.handlers.pairs import SPEC, done
from tests.handlers.platform import WriteSide

VMS, REPORTS = 20, 4


class Counting(EventStore):
    """Counts the appends that another one overtook."""

    conflicts = 0

    async def append(
        self, changes: Sequence[Change], context: Context, *, unchanged: Sequence[Tip] = ()
    ) -> list[Recorded]:
        try:
            return await super().append(changes, context, unchanged=unchanged)
        except Conflict:
            self.conflicts += 1
            raise


@pytest.fixture(scope="module")
async def server(servers_home: Path) -> AsyncIterator[WriteSide]:
    async with pairs.shared(servers_home / "concurrent-reports") as made:
        yield made


def node() -> Change:
    said: dict[str, Any] = {"vcpus": 4, "memory_mib": 4096, "disk_gib": 100, "virt_type": "test", "version": "0"}
    info = stored(NodeInfo(node="busy", region="local", seed_url="http://192.0.2.1:8775/", **said))
    lease = NodeLeased(at=now(), lease=1, boot="b", identity="i", host="tests", pid=1)
    return Change(Tip(Ref("system", "node", "busy")), [NodeRegistered(at=now(), info=info), lease])


def running(id_: str) -> Change:
    asked = {**done(), "deadline": now() + timedelta(hours=1)}
    place: dict[str, Any] = {"at": now(), "operation": asked["operation"], "node": "busy"}
    return Change(
        Tip(Ref("shared", "vm", id_)),
        [
            VmRequested(**asked, vm=id_, project="shared", name="web", image="shared", spec=SPEC),
            VmScheduled(**place, epoch=1, deadline=asked["deadline"], considered=()),
            VmStarted(**place, sequence=1, boots=1),
        ],
    )


def report(id_: str, number: int) -> NodeReport:
    """The report with this number; each says another address."""
    return NodeReport(
        vm=id_,
        node="busy",
        epoch=1,
        lease=1,
        sequence=1 + number,
        at=now(),
        power=Power.ON,
        boots=1,
        addresses=(f"192.0.2.{number}",),
    )


async def changed(world: World, store: EventStore, ids: Sequence[str]) -> dict[str, Any]:
    await world.reached(await store.last_position())
    found = [world.vm(id_) for id_ in ids]
    return {each.state.id: each.state.addresses for each in found if each is not None and each.state is not None}


async def test_none_conflicts_with_another_and_the_last_one_counts(server: WriteSide) -> None:
    ids = [str(uuid.uuid4()) for _ in range(VMS)]
    await pairs.put_all(server, [node(), *map(running, ids)])
    async with deciding(server.nats.url, server.home) as decider:
        store = Counting(decider.nc, decider.store.event_keys, frontier=decider.world.frontier)
        reports = Reports(store, decider.world)
        sent = [report(id_, number) for number in range(1, REPORTS + 1) for id_ in ids]
        await asyncio.gather(*map(reports.record, sent))
        found = await changed(decider.world, store, ids)
    assert store.conflicts == 0
    assert found == dict.fromkeys(ids, (f"192.0.2.{REPORTS}",))
    assert await server.types("shared", "vm", ids[0]) == [
        "VmRequested",
        "VmScheduled",
        "VmStarted",
        *["VmAddressesChanged"] * REPORTS,
    ]
