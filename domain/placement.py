"""The choice of a node for a VM: a pure function of the VM's size and the reservations of all nodes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from domain.base import Category, Rejected, Resources
from domain.node import Node
from domain.vm import Considered, Vm
from domain.vm.features import unknown

#: The fields of Resources, with their units in texts for people.
UNITS = {"vcpus": "vCPUs", "memory_mib": "MiB of memory", "disk_gib": "GiB of disk"}


#: If there are at least FEW other nodes, EXAMPLES of them are named for each kind of reason; the rest is counted.
FEW, EXAMPLES = 16, 3


@dataclass(frozen=True)
class Policy:
    """How much more than its capacity a node may promise. Memory and disk are never promised twice."""

    #: virtual CPUs promised per CPU of the host
    vcpu_ratio: float = 4.0


@dataclass(frozen=True)
class Placement:
    """The chosen node, or None; and all nodes that were considered, each with the reason against it."""

    node: str | None
    considered: tuple[Considered, ...]


def place(
    size: Resources,
    region: str | None,
    nodes: Iterable[Node],
    policy: Policy | None = None,
    architecture: str | None = None,
    features: tuple[str, ...] = (),
) -> Placement:
    """Choose, of all nodes that have room, the one with the most free memory; of equal ones that with the lowest id.

    `architecture`: that of the VM's image. `features`: those that the node has to know.
    """
    policy = policy or Policy()
    fitting: list[Node] = []
    passed_over: list[tuple[str, Considered]] = []
    for node in sorted(not_retired(nodes), key=lambda n: n.id):
        obstacle = obstacle_of(size, region, node, policy, architecture, features)
        if obstacle is None:
            fitting.append(node)
        else:
            kind, reason = obstacle
            passed_over.append((kind, Considered(node=node.id, reason=reason)))
    if not fitting:
        return Placement(None, abridged(passed_over))
    spare = {node.id: free(node, policy).memory_mib for node in fitting}
    best = max(fitting, key=lambda n: spare[n.id])  # of equal ones the first: that with the lowest id
    for node in sorted(fitting, key=lambda n: -spare[n.id]):
        if node is not best:
            how = "has less" if spare[node.id] < spare[best.id] else "has no more"
            considered = Considered(node=node.id, reason=f"{how} free memory ({spare[node.id]} MiB)")
            passed_over.append(("memory", considered))
    return Placement(best.id, abridged(passed_over, Considered(node=best.id)))


def not_retired(nodes: Iterable[Node]) -> Iterator[Node]:
    return (node for node in nodes if node.retired_at is None)


def abridged(passed_over: Sequence[tuple[str, Considered]], chosen: Considered | None = None) -> tuple[Considered, ...]:
    """The considered nodes, sorted by id. If there are many: a few for each kind of reason.

    The last of these has in `more` the number of those that were left out.
    """
    named = [considered for _, considered in passed_over]
    if len(named) >= FEW:
        kinds: dict[str, list[Considered]] = {}
        for kind, considered in passed_over:
            kinds.setdefault(kind, []).append(considered)
        named = []
        for some in kinds.values():
            *first, last = some[:EXAMPLES]
            named += [*first, last.model_copy(update={"more": len(some) - len(first) - 1})]
    return tuple(sorted([*named, chosen] if chosen else named, key=lambda c: c.node))


def check_attainable(size: Resources, region: str | None, nodes: Iterable[Node], policy: Policy) -> None:
    """Raises Rejected if no node could hold so much even when empty. Accepts any size while no node is known."""
    known = [node for node in not_retired(nodes) if region in (None, node.info.region)]
    if not known or any(fits(size, total(node, policy)) for node in known):
        return
    for field, unit in UNITS.items():
        requested = getattr(size, field)
        most = max(getattr(total(node, policy), field) for node in known)
        if requested > most:
            detail = f"{requested} {unit} requested, but the largest node has {most}; give at most {most}"
            raise Rejected("too_large", detail, Category.INVALID, field=field)


def fits(size: Resources, room: Resources) -> bool:
    return all(getattr(size, field) <= getattr(room, field) for field in UNITS)


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


def total(node: Node, policy: Policy) -> Resources:
    """What a node can promise to all its VMs together."""
    return Resources(
        vcpus=int(node.info.vcpus * policy.vcpu_ratio),
        memory_mib=node.info.memory_mib,
        disk_gib=node.info.disk_gib,
    )


def free(node: Node, policy: Policy) -> Resources:
    """What a node can still promise. It is negative if the node promised more than it has now."""
    used, all_ = node.reserved(), total(node, policy)
    return Resources(
        vcpus=all_.vcpus - used.vcpus,
        memory_mib=all_.memory_mib - used.memory_mib,
        disk_gib=all_.disk_gib - used.disk_gib,
    )


def obstacle_of(
    size: Resources,
    region: str | None,
    node: Node,
    policy: Policy,
    architecture: str | None = None,
    features: tuple[str, ...] = (),
) -> tuple[str, str] | None:
    """Why a node cannot take a VM: the kind of reason, and the reason in words. None if it can."""
    if region is not None and node.info.region != region:
        return "region", f"is in region {node.info.region}, not {region}"
    if architecture not in (None, node.info.architecture):
        return "architecture", f"has {node.info.architecture} CPUs, and the image is for {architecture}"
    if (lack := unknown(features, node.info.features)) is not None:
        return "features", lack
    if node.lost:
        return "lost", "is lost"
    if node.cordoned:
        return "cordoned", "is cordoned"
    room = free(node, policy)
    short = [
        f"{getattr(size, field)} {unit} requested, {getattr(room, field)} free"
        for field, unit in UNITS.items()
        if getattr(size, field) > getattr(room, field)
    ]
    return ("room", "; ".join(short)) if short else None
