"""The promises that no VM uses are those that follow from the nodes and the VMs, whatever came first."""

import random
import uuid
from datetime import UTC, datetime

import pytest

from domain import vm
from domain.base import Event, Resources
from domain.node import CapacityReleased, CapacityReserved, NodeRegistered, stored
from domain.vm import VmDeleted, VmScheduled
from eventstore.log.envelope import Context, Recorded, Ref, seal
from eventstore.log.judge import Tip
from handlers.world.world import World
from tests.domain.lives import create
from tests.domain.test_node import info

AT = datetime(2026, 1, 1, tzinfo=UTC)
NODES = ("n1", "n2")


@pytest.mark.parametrize("seed", range(20))
def test_an_unused_promise_is_known_in_any_order_of_its_events(seed: int) -> None:
    """A process may learn of the events of a node earlier than of those of a VM that are before them in the log."""
    chance, world = random.Random(seed), World()
    vms = [str(uuid.UUID(int=number)) for number in range(4)]
    lives = {Ref("p", "vm", id_): vm_life(id_) for id_ in vms}
    lives |= {Ref("system", "node", node): node_life(node, vms, chance) for node in NODES}
    tips = {ref: Tip(ref) for ref in lives}
    position, seen = 0, set[tuple[str, str]]()
    while left := [ref for ref, life in lives.items() if life]:
        ref = chance.choice(left)
        headers, body = seal(ref, tips[ref].version + 1, tips[ref].digest, lives[ref].pop(0), Context("tester"))
        position += 1
        recorded = Recorded(position, ref.subject, headers, body, AT)
        tips[ref] = tips[ref].after(recorded)
        assert world.take(recorded) is None
        expected = {(id_, node.id) for node in world.nodes() for id_ in node.reservations if on(world, id_) != node.id}
        assert set(world.unused) == expected
        assert {(id_, node) for id_ in vms for node in world.unused.nodes_of(id_)} == expected
        seen |= expected
    assert seen


def node_life(node: str, vms: list[str], chance: random.Random) -> list[Event]:
    """A node promises resources to VMs, and takes promises back, in any order."""
    said = stored(info(node=node))
    events: list[Event] = [CapacityReserved(at=AT, vm=id_, resources=Resources(vcpus=1)) for id_ in vms * 2]
    events += [CapacityReleased(at=AT, vm=id_) for id_ in vms]
    return [NodeRegistered(at=AT, info=said), *chance.sample(events, len(events))]


def vm_life(id_: str) -> list[Event]:
    """A VM is requested, placed and deleted."""
    more = {"at": AT, "operation": "o"}
    placed = VmScheduled(**more, node="n1", epoch=1, deadline=AT, considered=())
    return [*vm.decide(None, create(vm=id_)), placed, VmDeleted(**more)]


def on(world: World, id_: str) -> str | None:
    loaded = world.vm(id_)
    return loaded.state.node if loaded is not None and loaded.state is not None else None
