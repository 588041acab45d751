"""The commands of operators on a node, and those of its daemon and of the managers."""

from typing import Annotated, ClassVar

from domain.base import Command, Resources, Slug, Uuid, Value
from domain.contract import LEASE_SECONDS, BaseUrl, BootId, Daemon, NodeInfo
from domain.references import LOOKED_UP


class NodeCommand(Command):
    node: Slug


class Silence(Value):
    """For how many seconds there was no heartbeat of the daemon with this lease."""

    lease: int
    seconds: float


class RegisterNode(NodeCommand):
    """A daemon describes its node (`info`), and requests the node's lease (`daemon`), which one daemon at a time has.

    `heir`, `take_over`: see `Introduction`. `patience`: seconds of silence of the lease's holder after which another
    daemon may get the lease. `signed`: the daemon proved that it has the node's key. `keyed`: handlers have the keys of
    all nodes, so a node that is new has to sign. `latest`: the latest lease when the daemon was challenged.
    """

    info: NodeInfo
    daemon: Daemon | None = None
    heir: bool = False
    take_over: bool = False
    silence: Silence | None = None
    patience: float = LEASE_SECONDS
    signed: bool = False
    keyed: bool = False
    latest: int | None = None


class ReturnLease(NodeCommand):
    """The daemon that has the lease returns it, because it ends. `signed`: as in `RegisterNode`."""

    boot: BootId
    signed: bool = False


class Reserve(NodeCommand):
    """Promise resources to a VM. `again`: also if it has a reservation, which is replaced."""

    vm: Uuid
    resources: Resources
    again: bool = False


class Release(NodeCommand):
    vm: Uuid


class ChangeReservation(NodeCommand):
    """Replace the reservation of a VM that has one."""

    vm: Uuid
    resources: Resources


class LoseNode(NodeCommand):
    silent_seconds: float


class RecoverNode(NodeCommand):
    pass


class NodeOperationCommand(NodeCommand):
    """A command of an operator. When it is accepted, it becomes an operation. `VERB`: the name of its verb."""

    VERB: ClassVar[str]
    operation: Uuid
    fingerprint: str


class CordonNode(NodeOperationCommand):
    VERB = "cordon"


class UncordonNode(NodeOperationCommand):
    VERB = "uncordon"


class SetSeedUrl(NodeOperationCommand):
    """The operator sets the URL at which the guests of a node reach the data source."""

    VERB = "set-seed-url"
    seed_url: BaseUrl


class RetireNode(NodeOperationCommand):
    """The operator declares that a node is permanently lost.

    `needed`: the VMs that may be on it and are neither lost nor forgotten.
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
