"""A node as its events tell it, and what each event changes."""

from typing import assert_never

from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from domain.base import LENIENT, Event, Resources, replace
from domain.known import NONE, Known, Operations
from domain.node.commands import AskedOfNode, CordonNode, RetireNode, SetSeedUrl, UncordonNode
from domain.node.events import (
    CapacityReleased,
    CapacityReserved,
    NodeCordoned,
    NodeEvents,
    NodeLeased,
    NodeLeaseReturned,
    NodeLost,
    NodeRecovered,
    NodeRegistered,
    NodeRetired,
    NodeUncordoned,
    RegisteredInfo,
    SeedUrlSet,
)


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Holder:
    """The daemon that works for a node."""

    boot: str
    identity: str
    host: str
    pid: int
    since: AwareDatetime


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Node:
    """A node as its events tell it."""

    id: str
    info: RegisteredInfo
    lost: bool = False
    cordoned: bool = False
    reservations: dict[str, Resources] = Field(default_factory=dict)
    lease: int = Field(default=0, description="how often the node's lease was given")
    holder: Holder | None = Field(default=None, description="who has it now")
    identity: str | None = Field(default=None, description="of the daemon that had it last: the disks of VMs are there")
    retired_at: AwareDatetime | None = Field(default=None, description="when it was said to be gone for good")
    registered_at: AwareDatetime
    updated_at: AwareDatetime
    operations: Operations = NONE

    def reserved(self) -> Resources:
        promised = self.reservations.values()
        return Resources(
            vcpus=sum(r.vcpus for r in promised),
            memory_mib=sum(r.memory_mib for r in promised),
            disk_gib=sum(r.disk_gib for r in promised),
        )


def evolve(node: Node | None, event: Event) -> Node | None:
    """The state after an event."""
    if isinstance(event, NodeRegistered):
        return registered(node, event)
    if node is None or not isinstance(event, NodeEvents):
        return node
    return replace(changed(node, event), updated_at=event.at)


def registered(node: Node | None, event: NodeRegistered) -> Node:
    if node is None:
        return Node(id=event.info.node, info=event.info, registered_at=event.at, updated_at=event.at)
    return replace(node, info=event.info, retired_at=None, updated_at=event.at)


def changed(node: Node, event: NodeEvents) -> Node:
    match event:
        case NodeRegistered():
            return registered(node, event)
        case NodeLeased():
            holder = Holder(boot=event.boot, identity=event.identity, host=event.host, pid=event.pid, since=event.at)
            return replace(node, lease=event.lease, holder=holder, identity=event.identity)
        case NodeLeaseReturned():
            return replace(node, holder=None)
        case SeedUrlSet():
            return replace(
                node, info=node.info.with_seed_url(event.seed_url), operations=known(node, event, SetSeedUrl)
            )
        case CapacityReserved():
            return replace(node, reservations={**node.reservations, event.vm: event.resources})
        case CapacityReleased():
            return replace(node, reservations={vm: r for vm, r in node.reservations.items() if vm != event.vm})
        case NodeLost():
            return replace(node, lost=True)
        case NodeRecovered():
            return replace(node, lost=False)
        case NodeCordoned():
            return replace(node, cordoned=True, operations=known(node, event, CordonNode))
        case NodeUncordoned():
            return replace(node, cordoned=False, operations=known(node, event, UncordonNode))
        case NodeRetired():
            return replace(node, retired_at=event.at, holder=None, operations=known(node, event, RetireNode))
        case _:
            assert_never(event)


def known(
    node: Node, event: SeedUrlSet | NodeCordoned | NodeUncordoned | NodeRetired, asked: type[AskedOfNode]
) -> Operations:
    return node.operations.insert(event.operation or "", Known(asked.VERB, event.fingerprint))
