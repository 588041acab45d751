"""The types of the fields in documents and reports of nodes.

Paths, domain names and XML are built from them. So each has a strict pattern, and each number and text has a limit.
"""

import ipaddress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints

from domain import patterns
from domain.base import Resources

if TYPE_CHECKING:
    Json = JsonValue
else:
    Json = Any  # JSON cannot say anything else, and judging it twice costs time

Architecture = Literal["x86_64", "aarch64"]
"""The CPU architecture of an image, and of a node."""

Sha256 = Annotated[str, StringConstraints(pattern=f"^{patterns.SHA256}$")]
Sha512 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Source = Annotated[str, StringConstraints(pattern=r"^(/|https?://)[^\x00-\x1f\x7f]+$", max_length=4200)]
"""Where an image is: an absolute path, or a URL."""
BaseUrl = Annotated[
    str, StringConstraints(pattern=r"^http://[A-Za-z0-9._~:\[\]-]+/([A-Za-z0-9._~-]+/)*$", max_length=256)
]
"""The base URL of a data source. It ends in /, has no user, and no character that needs quoting in XML or a shell."""
SeedUrl = Annotated[str, StringConstraints(pattern=r"^(http://[A-Za-z0-9._~:@/\[\]-]+/)?$", max_length=512)]
Mac = Annotated[str, StringConstraints(pattern=r"^52:54:00(:[0-9a-f]{2}){3}$")]
"""A MAC address in QEMU's range, 52:54:00."""
Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
BootId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z-]{1,64}$")]
HostBoot = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z._-]{1,128}$")]
"""The id of one boot of a host."""
Word = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z._+-]{1,64}$")]
Feature = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
"""The name of a feature of nodes that a document may need."""
Features = Annotated[tuple[Feature, ...], Field(max_length=64)]
KindName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
"""The kind of resource that a document or a report is about, such as `vm`."""
Token = Annotated[str, StringConstraints(pattern=f"^{patterns.TOKEN}$")]
"""The id of a resource of any kind: one token of a subject."""

# Integers are strict: 1.0, true and "1" are refused.
Counter = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]
"""A count that rises by one, such as `boots`."""
Position = Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)]
"""A position of a stream. It fits in Postgres' bigint."""
Size = Annotated[int, Field(ge=0, le=2**53, strict=True)]
"""A number of bytes."""

WATCHDOG = "watchdog"
"""The feature of nodes that can give a VM a watchdog device."""

MOST_DETAIL, MOST_STEP = 2000, 100
MOST_ADDRESSES, MOST_ORPHANS = 64, 1000


def one_line(text: object, most: int = MOST_STEP) -> object:
    """Text from a program or a guest, made safe to store and show: only printable characters, `most` at most."""
    if not isinstance(text, str):
        return text
    cut = text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(char if char.isprintable() else " " for char in cut)


def detail(text: object) -> object:
    """The text of an error as one printable line."""
    return one_line(text, MOST_DETAIL)


def address(text: str) -> str:
    """An IP address. Raises ValueError."""
    if len(text) > 64:
        raise ValueError("not an IP address")
    ipaddress.ip_address(text)
    return text


def whole_numbers(size: object) -> object:
    """The input of a `Resources` field, if all its values are integers. Raises ValueError."""
    if isinstance(size, dict) and any(type(value) is not int for value in size.values()):
        raise ValueError("amounts have to be whole numbers")
    return size


def bounded(size: Resources) -> Resources:
    """The resources, if a host can have as many. Raises ValueError."""
    if not (
        0 <= size.vcpus <= MOST_VCPUS
        and 0 <= size.memory_mib <= MOST_MEMORY_MIB
        and 0 <= size.disk_gib <= MOST_DISK_GIB
    ):
        raise ValueError("has a negative amount, or more than a host can have")
    return size


MOST_VCPUS, MOST_MEMORY_MIB, MOST_DISK_GIB = 2**16, 2**30, 2**30
Vcpus = Annotated[int, Field(ge=0, le=MOST_VCPUS, strict=True)]
MemoryMib = Annotated[int, Field(ge=0, le=MOST_MEMORY_MIB, strict=True)]
DiskGib = Annotated[int, Field(ge=0, le=MOST_DISK_GIB, strict=True)]


class Desired(StrEnum):
    """The desired state of a VM. `absent`: it is to be deleted. A missing document does not mean `absent`."""

    ON = "on"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    OFF = "off"
    ABSENT = "absent"


class Power(StrEnum):
    """The power state of a VM as the node sees it. `unknown`: the node cannot see it. `unknown` never means `off`.

    `paused`: in memory, with stopped CPUs. `suspended`: off, with its memory saved on the node's disk.
    """

    ON = "on"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    OFF = "off"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Firmware(StrEnum):
    """The firmware that boots a guest's operating system."""

    BIOS = "bios"
    UEFI = "uefi"


class SeedMedium(StrEnum):
    """How cloud-init in a guest gets its seed: over HTTP, or from a disk that the node makes from the same data."""

    HTTP = "http"
    DISK = "disk"


class Fetch(StrEnum):
    """Where nodes get an image: from the platform, which keeps the verified bytes, or from the image's source."""

    PLATFORM = "platform"
    SOURCE = "source"


class Watchdog(StrEnum):
    """What the watchdog device does when the guest, which started it, no longer resets its timer.

    `disabled`: the guest has no such device.
    """

    DISABLED = "disabled"
    RESET = "reset"
    POWEROFF = "poweroff"
