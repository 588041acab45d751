"""What a guest says of itself, through the agent in it: told by its node when asked, kept nowhere.

A guest may say anything. What stands here is bounded in count and length and has no control characters; whoever makes
one of these out of what came from elsewhere gets a ValidationError for anything that is not. None is what the guest
did not say.
"""

import ipaddress
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from domain.base import Message

#: Characters of one text; interfaces, addresses of one of them, and filesystems in one answer.
MOST_TEXT, MOST_INTERFACES, MOST_ADDRESSES, MOST_FILESYSTEMS = 255, 64, 16, 64
#: Characters of a host key's base64, which is more than RSA of 16384 bits has; and how many keys a guest may name.
MOST_KEY, MOST_HOST_KEYS = 4096, 8
#: Bytes that a number of bytes may say, and how many of a kind may be said to be left out.
MOST_BYTES, MOST_MORE = 2**63 - 1, 10**6
#: Seconds that a time zone may be away from UTC.
MOST_OFFSET = 24 * 3600
#: Characters (by category) that move a cursor, turn the writing around, break a line, or are no characters at all.
UNFIT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """Raises ValueError for a text with UNFIT characters."""
    if any(unicodedata.category(character) in UNFIT for character in text):
        raise ValueError("has characters that are not printable")
    return text


def plain_address(text: str) -> str:
    """Raises ValueError for all but IPv4 and IPv6 addresses without a zone."""
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
    """An address of a guest, and who says so: the agent in it, a DHCP lease, or the host's ARP table."""

    address: Address
    source: Literal["agent", "lease", "arp"]


class InterfaceAddress(Message):
    address: Address
    prefix: int | None = Field(default=None, ge=0, le=128)


class Interface(Message):
    """A network interface as the guest has it: also those that it made for itself."""

    name: Text
    mac: str | None = Field(default=None, pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")
    addresses: tuple[InterfaceAddress, ...] = Field(default=(), max_length=MOST_ADDRESSES)


class Filesystem(Message):
    """A mounted filesystem. `device` is the guest's own name of it. `used_bytes` is as the guest counts."""

    mountpoint: Text
    device: Text | None = None
    type: Text | None = None
    total_bytes: Bytes | None = None
    used_bytes: Bytes | None = None


class Guest(Message):
    """`more_…` counts what was left out of a long list."""

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
