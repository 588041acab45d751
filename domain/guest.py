"""What a guest reports of itself, by the agent in it. Its node returns it on request; it is not stored.

A guest may report anything. These types limit the number of items and the length of texts, and accept no control
characters; they raise ValidationError for anything else. None: the guest did not report it.
"""

import ipaddress
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from domain.base import Message

#: Maximum number of characters of a text, of interfaces, of addresses of one interface, and of filesystems.
MOST_TEXT, MOST_INTERFACES, MOST_ADDRESSES, MOST_FILESYSTEMS = 255, 64, 16, 64
#: Maximum number of base64 characters of a host key (RSA of 16384 bits has fewer), and of host keys of a guest.
MOST_KEY, MOST_HOST_KEYS = 4096, 8
#: Maximum of a number of bytes, and of a number of omitted items.
MOST_BYTES, MOST_MORE = 2**63 - 1, 10**6
#: Maximum difference of a time zone to UTC, in seconds.
MOST_OFFSET = 24 * 3600
#: Unicode categories: control characters, format characters (such as a change of direction), surrogates, line ends.
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """Raises ValueError for a text with UNPRINTABLE characters."""
    if any(unicodedata.category(character) in UNPRINTABLE for character in text):
        raise ValueError("has characters that are not printable")
    return text


def plain_address(text: str) -> str:
    """Raises ValueError if the text is not an IPv4 or IPv6 address without a zone."""
    if "%" in text:
        raise ValueError("has a zone")
    ipaddress.ip_address(text)
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=MOST_TEXT), AfterValidator(printable)]
Bytes = Annotated[int, Field(ge=0, le=MOST_BYTES)]
More = Annotated[int, Field(ge=0, le=MOST_MORE)]


class OperatingSystem(Message):
    #: such as `debian`, for programs
    id: Text | None = None
    #: such as `Debian GNU/Linux 12 (bookworm)`, for people
    name: Text | None = None
    version: Text | None = None
    kernel_release: Text | None = None
    machine: Text | None = None


class Timezone(Message):
    name: Text | None = None
    offset_seconds: int = Field(ge=-MOST_OFFSET, le=MOST_OFFSET)


Address = Annotated[str, StringConstraints(max_length=45), AfterValidator(plain_address)]


class AddressSource(Message):
    """An address of a guest, and its source: the agent in the guest, a DHCP lease, or the host's ARP table."""

    address: Address
    source: Literal["agent", "lease", "arp"]


class InterfaceAddress(Message):
    address: Address
    prefix: int | None = Field(default=None, ge=0, le=128)


class Interface(Message):
    """A network interface in the guest, including those that the guest created."""

    name: Text
    mac: str | None = Field(default=None, pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")
    addresses: tuple[InterfaceAddress, ...] = Field(default=(), max_length=MOST_ADDRESSES)


class Filesystem(Message):
    """A mounted filesystem. `device` is its name in the guest. `used_bytes` is the guest's own number."""

    mountpoint: Text
    device: Text | None = None
    type: Text | None = None
    total_bytes: Bytes | None = None
    used_bytes: Bytes | None = None


class Guest(Message):
    """`more_…`: the number of items that were left out of a long list."""

    hostname: Text | None = None
    os: OperatingSystem | None = None
    timezone: Timezone | None = None
    interfaces: tuple[Interface, ...] | None = Field(default=None, max_length=MOST_INTERFACES)
    more_interfaces: More = 0
    filesystems: tuple[Filesystem, ...] | None = Field(default=None, max_length=MOST_FILESYSTEMS)
    more_filesystems: More = 0


class HostKey(Message):
    """A public SSH host key of the guest, as the guest itself reported it."""

    type: str
    key: str
    fingerprint: str = Field(description="SHA256:…, as ssh-keygen -l prints it")


def _bounded(key: HostKey) -> HostKey:
    if max(len(key.type), len(key.fingerprint)) > 128 or len(key.key) > MOST_KEY:
        raise ValueError(f"a host key has at most {MOST_KEY} characters")
    return key


BoundedKey = Annotated[HostKey, AfterValidator(_bounded)]
