"""What a node sends about itself: its registration, the requests for the lease of its daemon, and its heartbeat."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BeforeValidator, Field, StringConstraints

from domain import patterns
from domain.base import Message, Slug, Uuid
from domain.contract.known import KnownVms
from domain.contract.values import (
    MOST_MEMORY_MIB,
    MOST_ORPHANS,
    MOST_VCPUS,
    BaseUrl,
    BootId,
    Counter,
    DiskGib,
    Features,
    Position,
    Size,
    Word,
    one_line,
)

MOST_ASK_KEYS = 64
"""Maximum number of keys of gateways."""

Challenge = Annotated[str, StringConstraints(pattern=r"^([0-9]{1,12}-[0-9a-f]{32})?$")]
"""A text that handlers gave to a node. By repeating it, the node shows that its message is not an old one."""


AskKeys = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=rf"^{patterns.SHA256}$")], ...], Field(max_length=MOST_ASK_KEYS)
]
"""The public keys (Ed25519) of gateways, in hex: a node answers only questions that one of them signed."""

AnswerKeys = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{120}(,[0-9a-f]{120})?$")], ...],
    Field(max_length=MOST_ASK_KEYS),
]
"""For each of the `AskKeys`, the key of this node's answers, sealed for this node."""


class NodeInfo(Message):
    """The description of a node, sent when it registers and whenever it changes.

    `features`: the features that wanted documents may use on this node. Each kind of document other than `vm` is also a
    feature, with the name of the kind.
    """

    node: Slug
    region: Slug
    vcpus: Annotated[int, Field(ge=1, le=MOST_VCPUS, strict=True)]
    memory_mib: Annotated[int, Field(ge=1, le=MOST_MEMORY_MIB, strict=True)]
    disk_gib: DiskGib
    virt_type: Literal["kvm", "qemu", "test"]
    seed_url: BaseUrl = Field(description="base URL, ending in /, at which this node's guests reach the data source")
    version: Word
    architecture: Word = "x86_64"
    features: Features = ()


class Daemon(Message):
    """One process of a node daemon. `identity` is stored in its data directory, which only one process can lock."""

    boot: BootId = Field(description="random id of this process")
    identity: BootId
    host: Annotated[str, BeforeValidator(one_line)]
    pid: Counter


class Introduction(Message):
    """A daemon requests the lease of its node.

    `heir`: this process has just started, so the earlier process with its identity has ended. `take_over`: the operator
    confirms that the earlier daemon, which had another identity, will not come back. `challenge`: empty in the first
    request. A node that signs gets a challenge in reply, and repeats its request with it.
    """

    info: NodeInfo
    daemon: Daemon
    heir: bool = False
    take_over: bool = False
    challenge: Challenge = ""


class Leaving(Message):
    """A daemon returns its lease, because it ends."""

    boot: BootId


LEASE_SECONDS = 15.0
"""Default: seconds without a heartbeat of the holder after which another daemon may get the lease."""


class LeaseGranted(Message):
    """The daemon has the lease of its node, with this number.

    Another daemon may get the lease once there was no heartbeat of this one for `seconds`.
    """

    lease: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
    seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = LEASE_SECONDS
    ask_keys: AskKeys = ()
    answer_keys: AnswerKeys = ()


class Challenged(Message):
    """The answer of handlers to a signed message without a valid challenge: a new one."""

    challenge: Challenge
    ask_keys: AskKeys = ()
    answer_keys: AnswerKeys = ()


class HeartbeatAnswer(Challenged):
    """The answer of handlers to a heartbeat. `challenge`: empty if that of the heartbeat is valid, or it has no MAC.

    `known`: what the log knows of the VMs of the node, if the heartbeat asks for it.
    """

    known: KnownVms | None = None


class LeaseNote(Message):
    """Which daemon got the lease of a node last. It is stored before the daemon gets its reply."""

    node: Slug
    lease: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
    boot: BootId
    identity: BootId


class ImageCache(Message):
    """The base images that a node keeps: their number and their size in bytes.

    `budget_bytes`: the limit of their size; None if there is none. `free_bytes`: free space on their disk, on which the
    disks of VMs normally are too; None if unknown.
    """

    images: Counter
    bytes: Size
    budget_bytes: Size | None = None
    free_bytes: Size | None = None


class Heartbeat(Message):
    """Shows that a node's daemon is alive. `wanted_position` shows that it still reads its wanted documents."""

    node: Slug
    at: AwareDatetime
    boot: BootId = Field(description="random id of this daemon process; a new one means it was restarted")
    wanted_position: Position = Field(description="last stream sequence of NEBULA_WANTED it has read")
    orphans: Annotated[tuple[Uuid, ...], Field(max_length=MOST_ORPHANS)] = Field(
        default=(), description="domains of the platform for which there is no wanted document"
    )
    image_cache: ImageCache | None = None
    lease: Counter = Field(default=0, description="number of its lease; 0 while it has none and waits for one")
    daemon: Daemon | None = None
    malformed: Counter = Field(default=0, description="number of malformed wanted documents that it has read")
    refused_asks: Counter = Field(default=0, description="number of questions that no gateway asked")
    sequence: Position = Field(default=0, description="rises with each heartbeat of this process, if it signs")
    challenge: Challenge = Field(default="", description="the newest challenge of handlers, if the node signs")
    asks_known: bool = Field(default=False, description="whether handlers should answer what the log knows of its VMs")
