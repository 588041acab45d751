"""What a node says of itself: its registration and the lease of its daemon, and its heartbeat."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BeforeValidator, Field

from domain.base import Message, Slug, Uuid
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


class NodeInfo(Message):
    """What a node says of itself when it registers, and again whenever it changes.

    `features`: what documents may need of it, by name; a kind of documents other than VMs is a feature of that name.
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
    """One process of a node daemon. `identity` is kept in its data directory, which one process at a time can lock."""

    boot: BootId = Field(description="random id of this process")
    identity: BootId
    host: Annotated[str, BeforeValidator(one_line)]
    pid: Counter


class Introduction(Message):
    """A daemon asks to be the one of its node.

    `heir`: it has just started, so whoever had its identity before has ended. `take_over`: the operator says that the
    daemon before it, of another identity, will not come back.
    """

    info: NodeInfo
    daemon: Daemon
    heir: bool = False
    take_over: bool = False


class Leaving(Message):
    """A daemon gives its lease back: it has ended."""

    boot: BootId


LEASE_SECONDS = 15.0
"""Silence of a lease's holder after which another daemon may get the lease, where the settings say nothing else."""


class LeaseGranted(Message):
    """The daemon is the one of its node, under this number, until another one takes over.

    That can be once nobody has heard this one for `seconds`.
    """

    lease: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
    seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = LEASE_SECONDS


class LeaseNote(Message):
    """Which daemon was given the lease of a node last. It is written before that daemon is told."""

    node: Slug
    lease: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
    boot: BootId
    identity: BootId


class ImageCache(Message):
    """How much a node keeps of base images, in bytes. `budget_bytes` is None where there is no limit.

    `free_bytes` is what is free of the disk that they, and as a rule the disks of VMs, are on; None where unknown.
    """

    images: Counter
    bytes: Size
    budget_bytes: Size | None = None
    free_bytes: Size | None = None


class Heartbeat(Message):
    """A node's sign of life: also proof that it still reads its orders (`wanted_position`: the last it has seen)."""

    node: Slug
    at: AwareDatetime
    boot: BootId = Field(description="random id of this daemon process; a new one means it was restarted")
    wanted_position: Position = Field(description="last stream sequence of NEBULA_WANTED it has read")
    orphans: Annotated[tuple[Uuid, ...], Field(max_length=MOST_ORPHANS)] = Field(
        default=(), description="tagged domains that nobody wants"
    )
    image_cache: ImageCache | None = None
    lease: Counter = Field(default=0, description="what the daemon holds; 0 while it is refused, and waits")
    daemon: Daemon | None = None
    malformed: Counter = Field(default=0, description="wanted documents that make no sense to it")
