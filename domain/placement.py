"""Where a VM goes: a pure function of the wish and of every node's books."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from domain.base import Category, Rejected, Resources
from domain.node import Node
from domain.vm import Considered, Vm
from domain.vm.features import unknown

#: The fields of Resources, in words for people.
UNITS = {"vcpus": "vCPUs", "memory_mib": "MiB of memory", "disk_gib": "GiB of disk"}


#: In a cloud of more nodes than this, so many are named for each kind of reason, and the others counted.
FEW, EXAMPLES = 16, 3


@dataclass(frozen=True)
class Policy:
    """How far capacity may be promised beyond what a node has. Memory and disk are never promised twice."""

    #: virtual CPUs promised per CPU of the host
    vcpu_ratio: float = 4.0


@dataclass(frozen=True)
class Placement:
    """The node that was chosen, or None; and the nodes that were looked at, with why they were passed over."""

    node: str | None
    considered: tuple[Considered, ...]


def place(
    wish: Resources,
    region: str | None,
    nodes: Iterable[Node],
    policy: Policy | None = None,
    architecture: str | None = None,
    features: tuple[str, ...] = (),
) -> Placement:
    """Choose the node with the most free memory among those that have room; ties go to the lower id.

    `architecture` is what the VM's image is made for; `features` what the node has to know.
    """
    policy = policy or Policy()
    fitting: list[Node] = []
    passed_over: list[tuple[str, Considered]] = []
    for node in sorted(working(nodes), key=lambda n: n.id):
        found = why_not(wish, region, node, policy, architecture, features)
        if found is None:
            fitting.append(node)
        else:
            kind, reason = found
            passed_over.append((kind, Considered(node=node.id, reason=reason)))
    if not fitting:
        return Placement(None, told(passed_over))
    spare = {node.id: free(node, policy).memory_mib for node in fitting}
    best = max(fitting, key=lambda n: spare[n.id])  # the first of equals: the lowest id
    for node in sorted(fitting, key=lambda n: -spare[n.id]):
        if node is not best:
            how = "has less" if spare[node.id] < spare[best.id] else "has no more"
            considered = Considered(node=node.id, reason=f"{how} free memory ({spare[node.id]} MiB)")
            passed_over.append(("memory", considered))
    return Placement(best.id, told(passed_over, Considered(node=best.id)))


def working(nodes: Iterable[Node]) -> Iterator[Node]:
    """Those that are not gone for good: nobody is told of the others."""
    return (node for node in nodes if node.retired_at is None)


def told(passed_over: Sequence[tuple[str, Considered]], chosen: Considered | None = None) -> tuple[Considered, ...]:
    """All of them, by name; of many the first few of each kind, the last of which says how many more there are."""
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


def attainable(wish: Resources, region: str | None, nodes: Iterable[Node], policy: Policy) -> None:
    """Whether there is a node that could have so much, were it empty. Raises Rejected, with the numbers and the field.

    Where no node is known yet, nothing can be said.
    """
    known = [node for node in working(nodes) if region in (None, node.info.region)]
    if not known or any(holds(total(node, policy), wish) for node in known):
        return
    for field, unit in UNITS.items():
        asked = getattr(wish, field)
        most = max(getattr(total(node, policy), field) for node in known)
        if asked > most:
            detail = f"{asked} {unit} asked; the largest node that could have it has {most}"
            raise Rejected("too_large", detail, Category.INVALID, field=field)


def holds(room: Resources, wish: Resources) -> bool:
    return all(getattr(wish, field) <= getattr(room, field) for field in UNITS)


def grown(vm: Vm, wish: Resources, nodes: Sequence[Node], policy: Policy) -> None:
    """Whether a VM can have another size where it is. Raises Rejected, with the numbers and the field."""
    attainable(wish, vm.region, nodes, policy)
    known = [node for node in nodes if vm.region in (None, node.info.region)]
    host = next((node for node in known if node.id == vm.node), None)
    promised = host.reservations.get(vm.id, Resources()) if host else Resources()
    for field, unit in UNITS.items():
        asked, has = getattr(wish, field), getattr(promised, field)
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
    wish: Resources,
    region: str | None,
    node: Node,
    policy: Policy,
    architecture: str | None = None,
    features: tuple[str, ...] = (),
) -> tuple[str, str] | None:
    """The kind of reason and the reason why a node cannot take a VM, or None when it can."""
    if region is not None and node.info.region != region:
        return "region", f"is in region {node.info.region}, not {region}"
    if architecture not in (None, node.info.architecture):
        return "architecture", f"has {node.info.architecture} CPUs, and the image is for {architecture}"
    if (lack := unknown(features, node.info.features)) is not None:
        return "features", lack
    if node.lost:
        return "lost", "has not been heard of"
    if node.cordoned:
        return "cordoned", "is cordoned"
    room = free(node, policy)
    short = [
        f"{getattr(wish, field)} {unit} asked, {getattr(room, field)} free"
        for field, unit in UNITS.items()
        if getattr(wish, field) > getattr(room, field)
    ]
    return ("room", "; ".join(short)) if short else None
