"""What happened to a node."""

from pydantic import AwareDatetime, Field

from domain.base import Event, Message, Resources
from domain.contract import NodeInfo


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

    def with_seed_url(self, seed_url: str) -> "RegisteredInfo":
        return self.model_copy(update={"seed_url": seed_url})


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


class NodeRetired(NodeEvent):
    """It is gone for good, as an operator says: in no list, and no place for VMs, until a daemon takes it over."""

    TOPIC = "nebula.node.NodeRetired"
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
    | NodeRetired
)
