"""A host that runs VMs.

RegisterNode ─► ready ──LoseNode (silent too long)──► lost ──RecoverNode (heard again)──► ready
CordonNode: takes no new VMs until UncordonNode. Reserve and Release keep the books of what is promised to VMs.
"""

from typing import ClassVar, assert_never

from pydantic import AwareDatetime, Field

from domain.base import Command, Event, Message, Rejected, Resources, Slug, Uuid
from domain.contract import NodeInfo
from domain.known import NONE, Known, Operations, same_request


class NodeCommand(Command):
    node: Slug


class RegisterNode(NodeCommand):
    info: NodeInfo


class Reserve(NodeCommand):
    vm: Uuid
    resources: Resources


class Release(NodeCommand):
    vm: Uuid


class ChangeReservation(NodeCommand):
    """What is promised to a VM becomes more or less, at once."""

    vm: Uuid
    resources: Resources


class LoseNode(NodeCommand):
    silent_seconds: float


class RecoverNode(NodeCommand):
    pass


class AskedOfNode(NodeCommand):
    VERB: ClassVar[str]
    operation: Uuid
    fingerprint: str


class CordonNode(AskedOfNode):
    VERB = "cordon"


class UncordonNode(AskedOfNode):
    VERB = "uncordon"


NodeCommands = RegisterNode | Reserve | Release | ChangeReservation | LoseNode | RecoverNode | CordonNode | UncordonNode


class NodeEvent(Event):
    at: AwareDatetime
    operation: str | None = None


class NodeRegistered(NodeEvent):
    """First contact, or what a node says of itself has changed."""

    TOPIC = "nebula.node.NodeRegistered"
    info: NodeInfo


class CapacityReserved(NodeEvent):
    """Promised to a VM, in place of what was promised to it before."""

    TOPIC = "nebula.node.CapacityReserved"
    vm: str
    resources: Resources


class CapacityReleased(NodeEvent):
    TOPIC = "nebula.node.CapacityReleased"
    vm: str


class NodeLost(NodeEvent):
    TOPIC = "nebula.node.NodeLost"
    silent_seconds: float


class NodeRecovered(NodeEvent):
    TOPIC = "nebula.node.NodeRecovered"


class NodeCordoned(NodeEvent):
    TOPIC = "nebula.node.NodeCordoned"
    fingerprint: str


class NodeUncordoned(NodeEvent):
    TOPIC = "nebula.node.NodeUncordoned"
    fingerprint: str


NodeEvents = (
    NodeRegistered | CapacityReserved | CapacityReleased | NodeLost | NodeRecovered | NodeCordoned | NodeUncordoned
)


class Node(Message):
    """A node as its events tell it."""

    id: str
    info: NodeInfo
    lost: bool = False
    cordoned: bool = False
    reservations: dict[str, Resources] = Field(default_factory=dict)
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


def decide(node: Node | None, command: NodeCommands) -> list[NodeEvents]:
    """What follows from a command on a node."""
    if isinstance(command, RegisterNode):
        if command.info.node != command.node:
            detail = f"the info is about node {command.info.node}, not {command.node}"
            raise Rejected("invalid_request", detail, status=422, field="info.node")
        if node is not None and node.info == command.info:
            return []
        return [NodeRegistered(at=command.at, info=command.info)]
    if node is None:
        raise Rejected("node_not_found", f"there is no node {command.node}", status=404, field="node")
    match command:
        case Reserve():
            if command.vm in node.reservations:
                return []
            return [CapacityReserved(at=command.at, vm=command.vm, resources=command.resources)]
        case ChangeReservation():
            if node.reservations.get(command.vm) in (None, command.resources):
                return []
            return [CapacityReserved(at=command.at, vm=command.vm, resources=command.resources)]
        case Release():
            return [CapacityReleased(at=command.at, vm=command.vm)] if command.vm in node.reservations else []
        case LoseNode():
            return [] if node.lost else [NodeLost(at=command.at, silent_seconds=command.silent_seconds)]
        case RecoverNode():
            return [NodeRecovered(at=command.at)] if node.lost else []
        case CordonNode() | UncordonNode():
            known = node.operations.get(command.operation)
            if same_request(known, command.VERB, command.fingerprint):
                return []
            made = NodeCordoned if isinstance(command, CordonNode) else NodeUncordoned
            return [made(at=command.at, operation=command.operation, fingerprint=command.fingerprint)]
        case _:
            assert_never(command)


def evolve(node: Node | None, event: Event) -> Node | None:
    """The state after an event."""
    if isinstance(event, NodeRegistered):
        if node is None:
            return Node(id=event.info.node, info=event.info, registered_at=event.at, updated_at=event.at)
        return node.model_copy(update={"info": event.info, "updated_at": event.at})
    if node is None or not isinstance(event, NodeEvent):
        return node
    return node.model_copy(update={"updated_at": event.at, **changes(node, event)})


def changes(node: Node, event: NodeEvent) -> dict[str, object]:
    match event:
        case CapacityReserved():
            return {"reservations": {**node.reservations, event.vm: event.resources}}
        case CapacityReleased():
            return {"reservations": {vm: r for vm, r in node.reservations.items() if vm != event.vm}}
        case NodeLost():
            return {"lost": True}
        case NodeRecovered():
            return {"lost": False}
        case NodeCordoned() | NodeUncordoned():
            cordoned = isinstance(event, NodeCordoned)
            known = Known("cordon" if cordoned else "uncordon", event.fingerprint)
            return {"cordoned": cordoned, "operations": node.operations.insert(event.operation or "", known)}
        case _:
            return {}
