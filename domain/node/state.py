"""The state of a node, and how each event changes it."""

from typing import assert_never

from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from domain.accepted_requests import NONE, AcceptedRequest, Operations
from domain.base import LENIENT, Event, Resources, replace
from domain.node.commands import CordonNode, NodeOperationCommand, RetireNode, SetSeedUrl, UncordonNode
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
from domain.node.reservations import NO_RESERVATIONS, Reservations


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Holder:
    """The daemon that has the lease of a node."""

    boot: str
    identity: str
    host: str
    pid: int
    since: AwareDatetime


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Node:
    """The state of a node. `reservations`: the resources promised to each VM, by the VM's id."""

    id: str
    info: RegisteredInfo
    lost: bool = False
    cordoned: bool = False
    reservations: Reservations = NO_RESERVATIONS
    lease: int = Field(default=0, description="number of the latest lease: how often one was granted")
    holder: Holder | None = Field(default=None, description="the daemon that has the lease now")
    signs: bool = Field(default=False, description="whether a daemon of the node has signed: then all have to")
    identity: str | None = Field(default=None, description="of the last daemon; its folder has the disks of the VMs")
    retired_at: AwareDatetime | None = Field(default=None, description="when it was declared permanently lost")
    registered_at: AwareDatetime
    updated_at: AwareDatetime
    operations: Operations = NONE

    def reserved(self) -> Resources:
        """The sum of all reservations."""
        return self.reservations.total


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
            signs = node.signs or event.signed
            return replace(node, lease=event.lease, holder=holder, identity=event.identity, signs=signs)
        case NodeLeaseReturned():
            return replace(node, holder=None)
        case SeedUrlSet():
            operations = operations_after(node, event, SetSeedUrl)
            return replace(node, info=node.info.with_seed_url(event.seed_url), operations=operations)
        case CapacityReserved():
            return replace(node, reservations=node.reservations.insert(event.vm, event.resources))
        case CapacityReleased():
            return replace(node, reservations=node.reservations.discard(event.vm))
        case NodeLost():
            return replace(node, lost=True)
        case NodeRecovered():
            return replace(node, lost=False)
        case NodeCordoned():
            return replace(node, cordoned=True, operations=operations_after(node, event, CordonNode))
        case NodeUncordoned():
            return replace(node, cordoned=False, operations=operations_after(node, event, UncordonNode))
        case NodeRetired():
            operations = operations_after(node, event, RetireNode)
            return replace(node, retired_at=event.at, holder=None, operations=operations)
        case _:
            assert_never(event)


def operations_after(
    node: Node, event: SeedUrlSet | NodeCordoned | NodeUncordoned | NodeRetired, command: type[NodeOperationCommand]
) -> Operations:
    return node.operations.insert(event.operation or "", AcceptedRequest(command.VERB, event.fingerprint))
