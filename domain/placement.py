"""Where a VM goes: a pure function of the wish and of every node's books."""

from collections.abc import Iterable
from dataclasses import dataclass

from domain.base import Rejected, Resources
from domain.node import Node
from domain.vm import Considered, Vm

#: The fields of Resources, in words for people.
UNITS = {"vcpus": "vCPUs", "memory_mib": "MiB of memory", "disk_gib": "GiB of disk"}


@dataclass(frozen=True)
class Policy:
    """How far capacity may be promised beyond what a node has. Memory and disk are never promised twice."""

    #: virtual CPUs promised per CPU of the host
    vcpu_ratio: float = 4.0


@dataclass(frozen=True)
class Placement:
    """The node that was chosen, or None; and every node that was looked at, with why it was passed over."""

    node: str | None
    considered: tuple[Considered, ...]


def place(
    wish: Resources,
    region: str | None,
    nodes: Iterable[Node],
    policy: Policy | None = None,
    architecture: str | None = None,
) -> Placement:
    """Choose the node with the most free memory among those that have room; ties go to the lower id.

    `architecture` is what the VM's image is made for.
    """
    policy = policy or Policy()
    fitting: list[Node] = []
    considered: list[Considered] = []
    for node in sorted(nodes, key=lambda n: n.id):
        reason = why_not(wish, region, node, policy, architecture)
        if reason is None:
            fitting.append(node)
        else:
            considered.append(Considered(node=node.id, reason=reason))
    if not fitting:
        return Placement(None, tuple(considered))
    best = max(fitting, key=lambda n: free(n, policy).memory_mib)  # the first of equals: the lowest id
    most = free(best, policy).memory_mib
    for node in fitting:
        if node is not best:
            spare = free(node, policy).memory_mib
            how = "less" if spare < most else "no more"
            considered.append(Considered(node=node.id, reason=f"{how} free memory ({spare} MiB)"))
    considered.append(Considered(node=best.id))
    return Placement(best.id, tuple(sorted(considered, key=lambda c: c.node)))


def grown(vm: Vm, wish: Resources, nodes: Iterable[Node], policy: Policy) -> None:
    """Whether a VM can have another size where it is. Raises Rejected, with the numbers and the field."""
    known = [node for node in nodes if vm.region in (None, node.info.region)]
    host = next((node for node in known if node.id == vm.node), None)
    promised = host.reservations.get(vm.id, Resources()) if host else Resources()
    for field, unit in UNITS.items():
        asked, has = getattr(wish, field), getattr(promised, field)
        most = max((getattr(total(node, policy), field) for node in known), default=0)
        if asked > most:
            detail = f"{asked} {unit} asked; the largest node that could have it has {most}"
            raise Rejected("too_large", detail, status=422, field=field)
        if host is not None and asked > has and asked - has > getattr(free(host, policy), field):
            left = max(0, getattr(free(host, policy), field))
            detail = f"{asked - has} more {unit} asked, {left} free on node {host.id}"
            raise Rejected("no_room", detail, field=field)


def total(node: Node, policy: Policy) -> Resources:
    """What a node can promise to all VMs together."""
    return Resources(
        vcpus=int(node.info.vcpus * policy.vcpu_ratio),
        memory_mib=node.info.memory_mib,
        disk_gib=node.info.disk_gib,
    )


def free(node: Node, policy: Policy) -> Resources:
    """What a node can still promise; negative where it promised more than it has now."""
    used, all_ = node.reserved(), total(node, policy)
    return Resources(
        vcpus=all_.vcpus - used.vcpus,
        memory_mib=all_.memory_mib - used.memory_mib,
        disk_gib=all_.disk_gib - used.disk_gib,
    )


def why_not(
    wish: Resources, region: str | None, node: Node, policy: Policy, architecture: str | None = None
) -> str | None:
    """The reason a node cannot take a VM, or None when it can."""
    if region is not None and node.info.region != region:
        return f"is in region {node.info.region}, not {region}"
    if architecture not in (None, node.info.architecture):
        return f"has {node.info.architecture} CPUs, and the image is for {architecture}"
    if node.lost:
        return "has not been heard of"
    if node.cordoned:
        return "is cordoned"
    room = free(node, policy)
    short = [
        f"{getattr(wish, field)} {unit} asked, {getattr(room, field)} free"
        for field, unit in UNITS.items()
        if getattr(wish, field) > getattr(room, field)
    ]
    return "; ".join(short) or None
