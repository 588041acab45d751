"""A host that runs VMs.

RegisterNode ─► ready ──LoseNode (silent too long)──► lost ──RecoverNode (heard again)──► ready
CordonNode: takes no new VMs until UncordonNode. Reserve and Release keep the books of what is promised to VMs.
"""

from typing import ClassVar, assert_never

from pydantic import AwareDatetime, Field

from domain.base import Command, Event, Message, Rejected, Resources, Slug, Uuid, Value
from domain.contract import LEASE_SECONDS, BaseUrl, BootId, Daemon, NodeInfo
from domain.known import NONE, Known, Operations, same_request


class NodeCommand(Command):
    node: Slug


class Silence(Value):
    """For how many seconds the holder of a lease has not been heard."""

    lease: int
    seconds: float


class RegisterNode(NodeCommand):
    """A daemon says what its node is, and asks for the node's lease (`daemon`), which one daemon at a time has.

    `patience`: seconds of silence of the holder after which another daemon may have it.
    """

    info: NodeInfo
    daemon: Daemon | None = None
    heir: bool = False
    take_over: bool = False
    silence: Silence | None = None
    patience: float = LEASE_SECONDS


class ReturnLease(NodeCommand):
    """The daemon that holds the lease has ended."""

    boot: BootId


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


class SetSeedUrl(AskedOfNode):
    """The operator says where the guests of a node find their data source."""

    VERB = "set-seed-url"
    seed_url: BaseUrl


NodeCommands = (
    RegisterNode
    | ReturnLease
    | SetSeedUrl
    | Reserve
    | Release
    | ChangeReservation
    | LoseNode
    | RecoverNode
    | CordonNode
    | UncordonNode
)


class NodeEvent(Event):
    at: AwareDatetime
    operation: str | None = None


class RegisteredInfo(Message):
    """What a node has said of itself, as it is stored. It was judged before: whatever was stored has to load."""

    node: str
    region: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    virt_type: str
    seed_url: str = Field(description="base URL, ending in /, at which this node's guests reach the data source")
    version: str
    architecture: str = "x86_64"
    features: tuple[str, ...] = ()


def stored(info: NodeInfo) -> RegisteredInfo:
    return RegisteredInfo.model_validate(info.model_dump())


class NodeRegistered(NodeEvent):
    """First contact, or what a node says of itself has changed."""

    TOPIC = "nebula.node.NodeRegistered"
    info: RegisteredInfo


class NodeLeased(NodeEvent):
    """A daemon has become the one of the node; reports of an earlier lease mean nothing from now on."""

    TOPIC = "nebula.node.NodeLeased"
    lease: int
    boot: str
    identity: str
    host: str
    pid: int


class NodeLeaseReturned(NodeEvent):
    """The daemon that held the lease has ended in good order."""

    TOPIC = "nebula.node.NodeLeaseReturned"
    lease: int


class SeedUrlSet(NodeEvent):
    TOPIC = "nebula.node.SeedUrlSet"
    fingerprint: str
    seed_url: str


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
    NodeRegistered
    | NodeLeased
    | NodeLeaseReturned
    | SeedUrlSet
    | CapacityReserved
    | CapacityReleased
    | NodeLost
    | NodeRecovered
    | NodeCordoned
    | NodeUncordoned
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
        info = stored(command.info)
        if node is not None:  # where guests find their data is the operator's to say, once there are guests
            info = info.model_copy(update={"seed_url": node.info.seed_url})
        leased = taken(node, command)
        if node is not None and node.info == info:
            return leased
        return [NodeRegistered(at=command.at, info=info), *leased]
    if node is None:
        raise Rejected("node_not_found", f"there is no node {command.node}", status=404, field="node")
    match command:
        case ReturnLease():
            if node.holder is None or node.holder.boot != command.boot:
                return []
            return [NodeLeaseReturned(at=command.at, lease=node.lease)]
        case SetSeedUrl():
            known = node.operations.get(command.operation)
            if same_request(known, command.VERB, command.fingerprint):
                return []
            return [
                SeedUrlSet(
                    at=command.at,
                    operation=command.operation,
                    fingerprint=command.fingerprint,
                    seed_url=command.seed_url,
                )
            ]
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


def taken(node: Node | None, command: RegisterNode) -> list[NodeEvents]:
    """The lease changes hands, if it does. Raises Rejected where it may not.

    A daemon is known by the folder it works on (its identity): the disks of the node's VMs are there. The next process
    on the same folder gets the lease at once. One on another folder gets it when the holder has given it back or was
    not heard for some time, and no VM is on the node: it would find none of them. The operator can overrule the latter.
    """
    daemon = command.daemon
    if daemon is None or (node is not None and node.holder is not None and node.holder.boot == daemon.boot):
        return []
    if node is not None:
        same_folder = node.identity == daemon.identity
        if node.holder is not None and not (same_folder and command.heir) and not is_silent(node, command):
            raise in_use(node, node.holder)
        if node.identity is not None and not same_folder and node.reservations and not command.take_over:
            raise elsewhere(node)
    lease = (node.lease if node is not None else 0) + 1
    return [NodeLeased(at=command.at, lease=lease, **daemon.model_dump())]


def is_silent(node: Node, command: RegisterNode) -> bool:
    silence = command.silence
    return silence is not None and silence.lease == node.lease and silence.seconds >= command.patience


def in_use(node: Node, holder: Holder) -> Rejected:
    return Rejected(
        "node_taken",
        f"another daemon works for node {node.id}: process {holder.pid} on host {holder.host}, since "
        f"{holder.since:%Y-%m-%dT%H:%M:%SZ}. Give this one another name (NEBULA_NODE, or --prefix), or end that one: "
        "then this one takes over, if no VM is on the node",
    )


def elsewhere(node: Node) -> Rejected:
    was = f", process {node.holder.pid} on host {node.holder.host}" if node.holder is not None else ""
    return Rejected(
        "node_elsewhere",
        f"the {len(node.reservations)} VMs of node {node.id} are with another daemon{was}: this one works on another "
        "folder, without their disks. Is the folder mounted (NEBULA_HOME, NEBULA_NODE_DATA)? Start that daemon again, "
        "or give this one another name; or set NEBULA_TAKE_OVER=true if that one will never come back",
    )


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
        case _:
            return {}
