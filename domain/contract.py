"""The node contract: what handlers want of a node, and what a node reports.

A node is told what to want, not what to do. `Wanted` is the whole desired state of one VM on one node; the newest
document counts and older ones mean nothing. `NodeReport` is what libvirt says of one VM, as of now. Both travel as
JSON on the subjects of their node alone. What a node asks about images is in `image_questions.py`.

Both sides judge what they read and what they write by these types. Paths, domain names and XML are made of the values,
so each has a strict form, and every number and text has a bound.
"""

import ipaddress
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from domain.base import Hostname, Message, Resources, Slug, Uuid
from domain.guest import AddressSource

Architecture = Literal["x86_64", "aarch64"]
"""What an image is made for, and a node's CPUs are."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Sha512 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Source = Annotated[str, StringConstraints(pattern=r"^(/|https?://)[^\x00-\x1f\x7f]+$", max_length=4200)]
"""Where an image is: an absolute path, or a URL."""
BaseUrl = Annotated[
    str, StringConstraints(pattern=r"^http://[A-Za-z0-9._~:\[\]-]+/([A-Za-z0-9._~-]+/)*$", max_length=256)
]
"""The base URL of a data source. It ends in /, names no user, and holds nothing that would need quotes anywhere."""
SeedUrl = Annotated[str, StringConstraints(pattern=r"^(http://[A-Za-z0-9._~:@/\[\]-]+/)?$", max_length=512)]
Mac = Annotated[str, StringConstraints(pattern=r"^52:54:00(:[0-9a-f]{2}){3}$")]
"""A MAC address of QEMU's range."""
Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
BootId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z-]{1,64}$")]
HostBoot = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z._-]{1,128}$")]
"""The id of one boot of a host."""
Word = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z._+-]{1,64}$")]
Feature = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
"""What a document may need of a node, by name."""

# Whole numbers as JSON writes them: 1.0, true and "1" are none.
Counter = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]
"""A count of something that people or managers do one at a time."""
Position = Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)]
"""A number that Postgres' bigint can hold."""
Size = Annotated[int, Field(ge=0, le=2**53, strict=True)]
"""Bytes."""

WATCHDOG = "watchdog"
"""The feature of a node that gives VMs watchdogs."""

MOST_DETAIL, MOST_STEP = 2000, 100
MOST_ADDRESSES, MOST_ORPHANS = 64, 1000


def one_line(text: object, most: int = MOST_STEP) -> object:
    """Text of a program or a guest, fit to be stored and shown: printable, and not long."""
    if not isinstance(text, str):
        return text
    cut = text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(char if char.isprintable() else " " for char in cut)


def detail(text: object) -> object:
    return one_line(text, MOST_DETAIL)


def address(text: str) -> str:
    """An IP address. Raises ValueError."""
    if len(text) > 64:
        raise ValueError("not an IP address")
    ipaddress.ip_address(text)
    return text


def whole_numbers(size: object) -> object:
    """What is to be an amount, if all that it counts are whole numbers. Raises ValueError."""
    if isinstance(size, dict) and any(type(value) is not int for value in size.values()):
        raise ValueError("amounts are whole numbers")
    return size


def bounded(size: Resources) -> Resources:
    """An amount that a host can have. Raises ValueError."""
    if not (
        0 <= size.vcpus <= MOST_VCPUS
        and 0 <= size.memory_mib <= MOST_MEMORY_MIB
        and 0 <= size.disk_gib <= MOST_DISK_GIB
    ):
        raise ValueError("more than a host can have, or less than nothing")
    return size


MOST_VCPUS, MOST_MEMORY_MIB, MOST_DISK_GIB = 2**16, 2**30, 2**30
Vcpus = Annotated[int, Field(ge=0, le=MOST_VCPUS, strict=True)]
MemoryMib = Annotated[int, Field(ge=0, le=MOST_MEMORY_MIB, strict=True)]
DiskGib = Annotated[int, Field(ge=0, le=MOST_DISK_GIB, strict=True)]


class Desired(StrEnum):
    """What is wanted of a VM. `absent` is the explicit tombstone: unknown is not absent."""

    ON = "on"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    OFF = "off"
    ABSENT = "absent"


class Power(StrEnum):
    """What a node sees of a VM. `unknown` means that it cannot see; it never stands for `off`.

    `paused`: in memory, and its CPUs stand still. `suspended`: off, with its memory kept on the node's disk.
    """

    ON = "on"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    OFF = "off"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Firmware(StrEnum):
    """What starts a guest's operating system."""

    BIOS = "bios"
    UEFI = "uefi"


class SeedMedium(StrEnum):
    """How a guest's cloud-init gets its data: asked for over HTTP, or from a disk that the node makes of the same."""

    HTTP = "http"
    DISK = "disk"


class Fetch(StrEnum):
    """Where nodes get an image: from the platform, which keeps what it judged, or from the image's own source."""

    PLATFORM = "platform"
    SOURCE = "source"


class Watchdog(StrEnum):
    """What a watchdog device does once the guest, which has started it, has stopped to feed it.

    `disabled`: the guest has no such device.
    """

    DISABLED = "disabled"
    RESET = "reset"
    POWEROFF = "poweroff"


class ImageSource(Message):
    """Where a node gets the base image, how it knows that it got it right, and how guests boot from it."""

    image: Slug
    source: Source = Field(description="an absolute path on the node, or an http(s) URL")
    fetch: Fetch = Field(default=Fetch.SOURCE, description="documents of earlier versions do not say it")
    sha256: Sha256
    sha512: Sha512 | None = None
    format: Literal["qcow2", "raw"]
    size_bytes: Size
    virtual_size_bytes: Size
    firmware: Firmware = Firmware.BIOS
    seed: SeedMedium = SeedMedium.HTTP


class Place(NamedTuple):
    """Where a document stands: in which stream (microseconds from 1970 to when it was made), and its position there."""

    stream: int
    position: int

    def after(self, other: "Place") -> bool:
        """Whether it is later in the same stream."""
        return self.stream == other.stream and self.position > other.position


NOWHERE = Place(0, 0)


class Wanted(Message):
    """The desired state of one VM on one node.

    `boots` counts how often the VM was told to boot: a domain started for a lower count is to be stopped and started
    again. A guest that is to end has `grace_seconds` to do so by itself, counted by the node from when it first saw
    that `force_after`, which names the request; without `force_after` none at all. `resume` is set while somebody waits
    for it to go on: also a domain that stands still after an I/O error is then resumed. `disk` counts how often its
    disk was to be made: a domain on an earlier one is ended, and earlier disks are deleted once the new one is made
    from the image. `disk_made` is the last of them that a domain is known to have run on: gone or not, it is never made
    again. `seed_url` is where its cloud-init finds its configuration; it holds the secret of this boot. `epoch` names
    the placement, and stands in reports. `features` names what the node has to know; one that
    lacks a feature refuses.

    Which of two documents is newer is said by their places in the stream, since anybody's numbers can be high.
    """

    vm: Uuid
    project: Slug
    name: Hostname
    node: Slug
    epoch: Counter
    generation: Position = Field(description="the version of the VM's aggregate this was derived from")
    desired: Desired
    boots: Counter
    force_after: AwareDatetime | None = None
    grace_seconds: Annotated[float, Field(ge=0, le=86400)] | None = None
    resume: bool = False
    vcpus: Vcpus
    memory_mib: MemoryMib
    disk_gib: DiskGib
    disk: Counter = 1
    disk_made: Counter = 0
    image: ImageSource | None = Field(default=None, description="None only in a tombstone")
    seed_url: SeedUrl = Field(description="empty only in a tombstone")
    mac: Mac
    watchdog: Watchdog = Watchdog.DISABLED
    features: Annotated[tuple[Feature, ...], Field(max_length=64)] = ()
    place: SkipJsonSchema[Place] = Field(default=NOWHERE, exclude=True)
    """Never part of the document: the node fills in where it found it."""


class ReportError(Message):
    """Why a VM cannot be made as wanted: for good, until somebody changes something."""

    code: Code
    detail: Annotated[str, BeforeValidator(detail)]


class NodeReport(Message):
    """What a node sees of one VM.

    `lease` is what the daemon was given for its node; `sequence` rises with every report of a VM under that lease and
    is at most the nanoseconds since it was given. `desired` and `asked_boots` say which wanted document the daemon went
    by: what it says about another wish than the present one is no news. `boots` is the count that the domain in memory
    was started for (0 when there is none). `cause` says why a domain is off, where libvirt knows; `forced` that its
    plug was pulled. `step` tells what the daemon is busy with (image, with how much of it has come; disk; domain).
    `address_sources` are the addresses of this very boot of the guest and who says so; None until somebody was asked.
    `addresses` are the same for readers that know no sources. `size` is what the domain in memory was started with,
    `host_boot` the boot of the host that it was started in, and `resets` how often its guest has reset itself since: a
    boot of which nobody was asked. `watchdog_resets` of them were its watchdog's doing.
    """

    vm: Uuid
    node: Slug
    epoch: Counter
    lease: Counter = 0
    sequence: Position
    at: AwareDatetime
    power: Power
    desired: Desired | None = None
    asked_boots: Counter | None = None
    boots: Counter = 0
    size: Annotated[Resources, BeforeValidator(whole_numbers), AfterValidator(bounded)] | None = None
    addresses: Annotated[tuple[Annotated[str, AfterValidator(address)], ...], Field(max_length=MOST_ADDRESSES)] = ()
    address_sources: Annotated[tuple[AddressSource, ...], Field(max_length=MOST_ADDRESSES)] | None = None
    cause: Literal["guest", "crashed", "watchdog"] | None = None
    forced: bool = False
    host_boot: HostBoot | None = None
    resets: Counter = 0
    watchdog_resets: Counter = 0
    step: Annotated[str, BeforeValidator(one_line)] | None = None
    error: ReportError | None = None


class NodeInfo(Message):
    """What a node says of itself when it registers, and again whenever it changes."""

    node: Slug
    region: Slug
    vcpus: Annotated[int, Field(ge=1, le=MOST_VCPUS, strict=True)]
    memory_mib: Annotated[int, Field(ge=1, le=MOST_MEMORY_MIB, strict=True)]
    disk_gib: DiskGib
    virt_type: Literal["kvm", "qemu", "test"]
    seed_url: BaseUrl = Field(description="base URL, ending in /, at which this node's guests reach the data source")
    version: Word
    architecture: Word = "x86_64"
    features: Annotated[tuple[Feature, ...], Field(max_length=64)] = ()


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
