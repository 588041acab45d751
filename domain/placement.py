"""Where a VM goes: a pure function of the wish and of every node's books."""

from collections.abc import Iterable
from dataclasses import dataclass

from domain.base import Resources
from domain.node import Node
from domain.vm import Considered


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


def place(wish: Resources, region: str | None, nodes: Iterable[Node], policy: Policy | None = None) -> Placement:
    """Choose the node with the most free memory among those that have room; ties go to the lower id."""
    policy = policy or Policy()
    fitting: list[Node] = []
    considered: list[Considered] = []
    for node in sorted(nodes, key=lambda n: n.id):
        reason = why_not(wish, region, node, policy)
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


def free(node: Node, policy: Policy) -> Resources:
    """What a node can still promise; negative where it promised more than it has now."""
    used = node.reserved()
    return Resources(
        vcpus=int(node.info.vcpus * policy.vcpu_ratio) - used.vcpus,
        memory_mib=node.info.memory_mib - used.memory_mib,
        disk_gib=node.info.disk_gib - used.disk_gib,
    )


def why_not(wish: Resources, region: str | None, node: Node, policy: Policy) -> str | None:
    """The reason a node cannot take a VM, or None when it can."""
    if region is not None and node.info.region != region:
        return f"is in region {node.info.region}, not {region}"
    if node.lost:
        return "has not been heard of"
    if node.cordoned:
        return "is cordoned"
    room = free(node, policy)
    short = [
        f"{wanted} {unit} asked, {left} free"
        for wanted, left, unit in (
            (wish.vcpus, room.vcpus, "vCPUs"),
            (wish.memory_mib, room.memory_mib, "MiB of memory"),
            (wish.disk_gib, room.disk_gib, "GiB of disk"),
        )
        if wanted > left
    ]
    return "; ".join(short) or None
