"""The values that documents and reports of nodes are made of.

Paths, domain names and XML are made of them, so each has a strict form, and every number and text has a bound.
"""

import ipaddress
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from domain import patterns
from domain.base import Resources

Architecture = Literal["x86_64", "aarch64"]
"""What an image is made for, and a node's CPUs are."""

Sha256 = Annotated[str, StringConstraints(pattern=f"^{patterns.SHA256}$")]
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
Features = Annotated[tuple[Feature, ...], Field(max_length=64)]
KindName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
"""What a document or a report is about: `vm`."""
Token = Annotated[str, StringConstraints(pattern=f"^{patterns.TOKEN}$")]
"""An id of a thing of any kind: one token of a subject."""

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
