"""A node gets exactly as many VMs as it has room for, however many processes decide."""

from datetime import UTC, datetime

from bench.several.room import filled, over
from domain.base import Resources
from domain.contract import NodeInfo
from domain.node import CapacityReserved, Node, NodeRegistered, evolve

ROOM, CREATES = 100, 120
NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def test_four_handlers_fill_a_node_exactly() -> None:
    found = await filled(4, ROOM, CREATES)
    assert (found.placed, found.most_reserved) == (ROOM, ROOM)
    assert found.positions > CREATES + ROOM
    assert all(found.figures().values())


def test_what_is_beyond_the_room_of_a_node_is_seen() -> None:
    node: Node | None = None
    has = {"vcpus": 2, "memory_mib": 128, "disk_gib": 9}
    info = NodeInfo(node="n", region="r", virt_type="test", seed_url="http://192.0.2.1/", version="1", **has)
    of_vm = Resources(vcpus=1, memory_mib=64, disk_gib=1)
    promises = [CapacityReserved(at=NOW, vm=str(number), resources=of_vm) for number in range(3)]
    events = [NodeRegistered.model_validate({"at": NOW, "info": info.model_dump()}), *promises]
    for event in events[:-1]:
        node = evolve(node, event)
        assert node is not None
        assert over(node) == {}
    node = evolve(node, events[-1])
    assert node is not None
    assert over(node) == {"vcpus": 1, "memory_mib": 64}
