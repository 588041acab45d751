"""The node contract: what handlers want of a node, and what a node reports.

A node is told what to want, not what to do. `Wanted` is the whole desired state of one VM on one node; the newest
document counts and older ones mean nothing. `NodeReport` is what libvirt says of one VM, as of now. Both travel as
JSON on the subjects of their node alone.
"""

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from domain.base import Message, Resources

Architecture = Literal["x86_64", "aarch64"]
"""What an image is made for, and a node's CPUs are."""


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


class ImageSource(Message):
    """Where a node gets the base image, how it knows that it got it right, and how guests boot from it."""

    image: str
    source: str = Field(description="an absolute path on the node, or an http(s) URL")
    sha256: str
    sha512: str | None = None
    format: Literal["qcow2", "raw"]
    size_bytes: int
    virtual_size_bytes: int
    firmware: Firmware = Firmware.BIOS
    seed: SeedMedium = SeedMedium.HTTP


class Wanted(Message):
    """The desired state of one VM on one node.

    `boots` counts how often the VM was told to boot: a domain started for a lower count is to be stopped (gracefully
    until `force_after`) and started again. `resume` is set while somebody waits for it to go on: also a domain that
    stands still after an I/O error is then resumed. `disk` counts how often its disk was to be made: a domain on an
    earlier one is ended, and earlier disks are deleted once the new one is made from the image. `disk_made` is
    the last of them that a domain is known to have run on: gone or not, it is never made again. `seed_url` is where its
    cloud-init finds its configuration; it holds the secret of this boot. `epoch` fences: a document of a lower epoch
    than one seen before is refused.
    """

    vm: str
    project: str
    name: str
    node: str
    epoch: int
    generation: int = Field(description="the version of the VM's aggregate this was derived from")
    desired: Desired
    boots: int
    force_after: AwareDatetime | None = None
    resume: bool = False
    vcpus: int
    memory_mib: int
    disk_gib: int
    disk: int = 1
    disk_made: int = 0
    image: ImageSource | None = Field(default=None, description="None only in a tombstone")
    seed_url: str
    mac: str


class ReportError(Message):
    """Why a VM cannot be made as wanted: for good, until somebody changes something."""

    code: str
    detail: str


class NodeReport(Message):
    """What a node sees of one VM.

    `sequence` rises with every report of a VM, over restarts of the daemon too. `desired` and `asked_boots` say which
    wanted document the daemon went by: what it says about another wish than the present one is no news. `boots` is the
    count that the domain in memory was started for (0 when there is none). `cause` says why a domain is off, where
    libvirt knows. `step` tells what the daemon is busy with (image, with how much of it has come; disk; domain).
    `size` is what the domain in memory was started with.
    """

    vm: str
    node: str
    epoch: int
    sequence: int
    at: AwareDatetime
    power: Power
    desired: Desired | None = None
    asked_boots: int | None = None
    boots: int = 0
    size: Resources | None = None
    addresses: tuple[str, ...] = ()
    cause: Literal["guest", "crashed"] | None = None
    step: str | None = None
    error: ReportError | None = None


class NodeInfo(Message):
    """What a node says of itself when it registers, and again whenever it changes."""

    node: str
    region: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    virt_type: Literal["kvm", "qemu", "test"]
    seed_url: str = Field(description="base URL, ending in /, at which this node's guests reach the data source")
    version: str
    architecture: str = "x86_64"


class ImageCache(Message):
    """How much a node keeps of base images, in bytes. `budget_bytes` is None where there is no limit."""

    images: int
    bytes: int
    budget_bytes: int | None = None


class CachedImages(Message):
    """A node's question: the sha256 of every image it keeps."""

    node: str
    digests: tuple[str, ...]


class UnwantedImages(Message):
    """The answer: those that are in the catalogue no more."""

    digests: tuple[str, ...]


class Heartbeat(Message):
    """A node's sign of life: also proof that it still reads its orders (`wanted_position`: the last it has seen)."""

    node: str
    at: AwareDatetime
    boot: str = Field(description="random id of this daemon process; a new one means it was restarted")
    wanted_position: int = Field(description="last stream sequence of NEBULA_WANTED it has read")
    orphans: tuple[str, ...] = Field(default=(), description="tagged domains that nobody wants")
    image_cache: ImageCache | None = None
