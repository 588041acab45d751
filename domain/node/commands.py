"""What can be asked of a node, and what daemons and managers find out about it."""

from typing import Annotated, ClassVar

from domain.base import Command, Resources, Slug, Uuid, Value
from domain.contract import LEASE_SECONDS, BaseUrl, BootId, Daemon, NodeInfo
from domain.references import LOOKED_UP


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


class RetireNode(AskedOfNode):
    """The operator says that a node is gone for good.

    `needed`: VMs that may be on it and are neither lost nor forgotten.
    """

    VERB = "retire"
    needed: Annotated[tuple[Uuid, ...], LOOKED_UP] = ()


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
    | RetireNode
)
