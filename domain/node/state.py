"""A node as its events tell it, and what each event changes."""

from pydantic import AwareDatetime, Field

from domain.base import Event, Message, Resources
from domain.known import NONE, Known, Operations
from domain.node.commands import RetireNode, SetSeedUrl
from domain.node.events import (
    CapacityReleased,
    CapacityReserved,
    NodeCordoned,
    NodeEvent,
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


class Holder(Message):
    """The daemon that works for a node."""

    boot: str
    identity: str
    host: str
    pid: int
    since: AwareDatetime


class Node(Message):
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
        if node is None:
            return Node(id=event.info.node, info=event.info, registered_at=event.at, updated_at=event.at)
        return node.model_copy(update={"info": event.info, "retired_at": None, "updated_at": event.at})
    if node is None or not isinstance(event, NodeEvent):
        return node
    return node.model_copy(update={"updated_at": event.at, **changes(node, event)})


def changes(node: Node, event: NodeEvent) -> dict[str, object]:
    match event:
        case NodeLeased():
            holder = Holder(boot=event.boot, identity=event.identity, host=event.host, pid=event.pid, since=event.at)
            return {"lease": event.lease, "holder": holder, "identity": event.identity}
        case NodeLeaseReturned():
            return {"holder": None}
        case SeedUrlSet():
            known = Known(verb=SetSeedUrl.VERB, fingerprint=event.fingerprint)
            return {
                "info": node.info.model_copy(update={"seed_url": event.seed_url}),
                "operations": node.operations.insert(event.operation or "", known),
            }
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
        case NodeRetired():
            known = Known(RetireNode.VERB, event.fingerprint)
            operations = node.operations.insert(event.operation or "", known)
            return {"retired_at": event.at, "holder": None, "operations": operations}
        case _:
            return {}
