"""Whether a node can take a VM, and why not: pure functions of the VM's size and the reservations of nodes.

`candidates.py` chooses one of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from domain.base import Category, Rejected, Resources
from domain.node import Node
from domain.vm import Considered, Vm
from domain.vm.features import unknown

#: The fields of Resources, with their units in texts for people.
UNITS = {"vcpus": "vCPUs", "memory_mib": "MiB of memory", "disk_gib": "GiB of disk"}


@dataclass(frozen=True)
class Policy:
    """How much more than its capacity a node may promise. Memory and disk are never promised twice."""

    #: virtual CPUs promised per CPU of the host
    vcpu_ratio: float = 4.0


class Room(NamedTuple):
    """Resources that may be negative: what a node can still promise."""

    vcpus: int
    memory_mib: int
    disk_gib: int


class Wish(NamedTuple):
    """What a VM needs of its node."""

    size: Resources
    region: str | None
    architecture: str | None
    features: tuple[str, ...]


class Passed(NamedTuple):
    """A node that is not chosen. Its reason is put in words only if somebody is told."""

    node: Node
    room: Room


@dataclass(frozen=True)
class Placement:
    """The chosen node, or None; and all nodes that were considered, each with the reason against it."""

    node: str | None
    considered: tuple[Considered, ...]


def not_retired(nodes: Iterable[Node]) -> Iterator[Node]:
    return (node for node in nodes if node.retired_at is None)


def check_attainable(size: Resources, region: str | None, nodes: Iterable[Node], policy: Policy) -> None:
    """Raises Rejected if no node could hold so much even when empty. Accepts any size while no node is known."""
    known = []
    for node in not_retired(nodes):
        if region in (None, node.info.region):
            if fits(size, total(node, policy)):
                return
            known.append(node)
    if not known:
        return
    for field, unit in UNITS.items():
        requested = getattr(size, field)
        most = max(getattr(total(node, policy), field) for node in known)
        if requested > most:
            detail = f"{requested} {unit} requested, but the largest node has {most}; give at most {most}"
            raise Rejected("too_large", detail, Category.INVALID, field=field)


def fits(size: Resources, room: Room) -> bool:
    return size.vcpus <= room.vcpus and size.memory_mib <= room.memory_mib and size.disk_gib <= room.disk_gib


def check_resize(vm: Vm, size: Resources, nodes: Sequence[Node], policy: Policy) -> None:
    """Raises Rejected if the VM cannot have this size on its node."""
    check_attainable(size, vm.region, nodes, policy)
    known = [node for node in nodes if vm.region in (None, node.info.region)]
    host = next((node for node in known if node.id == vm.node), None)
    promised = host.reservations.get(vm.id, Resources()) if host else Resources()
    for field, unit in UNITS.items():
        requested, has = getattr(size, field), getattr(promised, field)
        if host is not None and requested > has and requested - has > getattr(free(host, policy), field):
            room = max(0, getattr(free(host, policy), field))
            detail = (
                f"{requested - has} more {unit} requested, {room} free on node {host.id}; give at most {has + room}"
            )
            raise Rejected("no_room", detail, field=field)


def total(node: Node, policy: Policy) -> Room:
    """What a node can promise to all its VMs together."""
    info = node.info
    return Room(int(info.vcpus * policy.vcpu_ratio), info.memory_mib, info.disk_gib)


def free(node: Node, policy: Policy) -> Room:
    """What a node can still promise. It is negative if the node promised more than it has now."""
    used, all_ = node.reserved(), total(node, policy)
    return Room(all_.vcpus - used.vcpus, all_.memory_mib - used.memory_mib, all_.disk_gib - used.disk_gib)


def obstacle_of(wish: Wish, node: Node, room: Room) -> str | None:
    """Why a node with so much room cannot take a VM: the kind of reason. None if it can."""
    if wish.region is not None and node.info.region != wish.region:
        return "region"
    if wish.architecture is not None and wish.architecture != node.info.architecture:
        return "architecture"
    if wish.features and unknown(wish.features, node.info.features) is not None:
        return "features"
    if node.lost:
        return "lost"
    if node.cordoned:
        return "cordoned"
    return None if fits(wish.size, room) else "room"


def reason(kind: str, wish: Wish, passed: Passed, best: Passed | None) -> str:
    """Why a node was not chosen, in words."""
    node, room = passed
    match kind:
        case "region":
            return f"is in region {node.info.region}, not {wish.region}"
        case "architecture":
            return f"has {node.info.architecture} CPUs, and the image is for {wish.architecture}"
        case "features":
            return unknown(wish.features, node.info.features) or ""
        case "memory":
            how = "has less" if best is not None and room.memory_mib < best.room.memory_mib else "has no more"
            return f"{how} free memory ({room.memory_mib} MiB)"
        case "room":
            return "; ".join(
                f"{getattr(wish.size, field)} {unit} requested, {getattr(room, field)} free"
                for field, unit in UNITS.items()
                if getattr(wish.size, field) > getattr(room, field)
            )
        case _:
            return f"is {kind}"
