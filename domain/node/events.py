"""What happened to a node."""

from pydantic import AwareDatetime, Field

from domain.base import Event, Message, Resources
from domain.contract import NodeInfo


class NodeEvent(Event):
    at: AwareDatetime
    operation: str | None = None


class RegisteredInfo(Message):
    """The stored form of `NodeInfo`. It validates less, because everything that was ever stored has to load."""

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
    """The first registration of a node, or a change of its description."""

    TOPIC = "nebula.node.NodeRegistered"
    info: RegisteredInfo


class NodeLeased(NodeEvent):
    """A daemon got the lease of the node. From now on reports under an earlier lease are ignored.

    `signed`: it proved that it has the node's key. From now on the node has to sign everything.
    """

    TOPIC = "nebula.node.NodeLeased"
    lease: int
    boot: str
    identity: str
    host: str
    pid: int
    signed: bool = False


class NodeLeaseReturned(NodeEvent):
    """The daemon that had the lease has ended normally."""

    TOPIC = "nebula.node.NodeLeaseReturned"
    lease: int


class SeedUrlSet(NodeEvent):
    TOPIC = "nebula.node.SeedUrlSet"
    fingerprint: str
    seed_url: str


class CapacityReserved(NodeEvent):
    """The resources are promised to a VM. They replace its earlier reservation."""

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
    """An operator declared it permanently lost. It is in no list and gets no VMs, unless a daemon takes it over."""

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
