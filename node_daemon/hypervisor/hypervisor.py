"""The interface to a hypervisor: a protocol of few methods, and the values that they take and return."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from domain.base import Resources
from domain.contract import NOWHERE, Place, Power, Wanted, Watchdog
from domain.guest import Guest
from domain.guest_usage import GuestUsage


class Unreachable(Exception):
    """The hypervisor does not answer. The state of its domains is unknown; they may run."""


class Refused(Exception):
    """The hypervisor answered with an error. `invalid`: the request is invalid, so a retry does not help.

    `code`: the code of the problem if the error persists; None: the failed step determines the code.
    """

    def __init__(self, detail: str, *, invalid: bool = False, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.invalid = invalid
        self.code = code


class Busy(Refused):
    """Somebody else uses what was requested, such as a console."""


class AgentMissing(Refused):
    """No agent runs in the guest: it is not installed, or the guest still boots."""


class AgentSilent(Refused):
    """An agent runs in the guest, but does not answer in time."""


@dataclass(frozen=True)
class Have:
    """The actual state of one VM on this host."""

    vm: str
    power: Power
    #: `boots` of the document that the domain was last started from; 0 if there is no domain
    boots: int = 0
    #: epoch of that document
    epoch: int = 0
    #: generation of that document
    generation: int = 0
    #: place of that document in its stream; NOWHERE if the domain's tag does not state it (older versions)
    place: Place = NOWHERE
    #: size that the domain was started with; None if its tag does not state it
    size: Resources | None = None
    #: boot id of the host when the domain was started
    host_boot: str = ""
    #: the domain is persistent: libvirt has stored the configuration that it runs with
    persistent: bool = True
    #: why the domain is off; None if the hypervisor does not know
    cause: Literal["guest", "crashed"] | None = None
    #: the domain is off because it was destroyed
    forced: bool = False
    #: the domain is paused because of an I/O error
    stalled: bool = False
    #: a leftover of older memory is on disk, although the domain is also in memory
    remains: bool = False
    #: a domain that Nebula did not create has the uuid or name of this VM
    foreign: bool = False
    #: files of the VM are on this host
    files: bool = False
    #: number of the disk that the domain was started on: `disk` of its document
    disk: int = 1

    @property
    def domain(self) -> bool:
        return self.power is not Power.ABSENT


class Lease(NamedTuple):
    """A DHCP lease. `expires`: seconds since 1970; None if it never expires or the expiry is unknown."""

    address: str
    expires: int | None = None


@dataclass(frozen=True)
class Sighting:
    """The addresses of a guest's interface at one moment, by source; IPv4 and routable IPv6, sorted.

    A DHCP lease or an entry of the host's ARP table may belong to an earlier boot of the guest.
    """

    #: None if no agent answers, or it does not know the interface
    agent: tuple[str, ...] | None = None
    leases: tuple[Lease, ...] = ()
    arp: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capacity:
    """The number of CPUs of the host, and its memory in MiB."""

    vcpus: int
    memory_mib: int


class Overlay(NamedTuple):
    """The file of a disk of a domain, the file of its backing image, and the format of that image."""

    disk: str
    base: str
    base_format: str


@dataclass(frozen=True)
class Boot:
    """All data to start a VM: its document, its files, and the boot id of the host."""

    wanted: Wanted
    disk: str
    #: the backing image of the disk, and its format
    base: str
    base_format: str
    console: str
    host_boot: str
    #: the disk that brings cloud-init its data, or their URL; None if there is no cloud-init
    seed: str | None = None
    #: the disks after the boot disk, in order
    further: tuple[Overlay, ...] = ()


def size_of(wanted: Wanted) -> Resources:
    """The size that a document states."""
    return Resources(vcpus=wanted.vcpus, memory_mib=wanted.memory_mib, disk_gib=wanted.disk_gib)


Nudge = Callable[[str | None], None]
"""Called with the id of a VM after an event of its domain; with None when events of any domain may have been missed."""


Reset = Callable[[str], None]
"""Called with the id of a VM after each reset of its guest."""


Fired = Callable[[str, Watchdog], None]
"""Called with the id of a VM and the action of its watchdog when it has fired, before the action is done."""


def ignore(*_: object) -> None:
    """A callback that does nothing."""


class Channel(Protocol):
    """Bytes to and from a guest. One task reads and one writes at a time."""

    async def read(self) -> bytes:
        """The next bytes; b"" once the other end has closed the channel or failed."""
        ...

    async def write(self, data: bytes) -> None:
        """Send the data; waits while the other end is busy. After the other end has closed, the data are lost."""
        ...

    async def close(self) -> None:
        """Close the channel. No error if it is closed. A task in `read` gets b""."""
        ...


class Hypervisor(Protocol):
    """Each method raises Unreachable if no answer comes in time, and Refused if the hypervisor answers with an error.

    Each call concerns one VM: a call that hangs never delays calls for other VMs.
    """

    async def domains(self) -> Mapping[str, Have]:
        """All domains that carry our tag, by VM id. Foreign domains are not listed."""
        ...

    async def look(self, vm: str) -> Have:
        """The state of one VM now. It is `foreign` if a domain without our tag has its uuid or name."""
        ...

    async def start(self, boot: Boot) -> Have:
        """Start the domain from its document, and activate the network of the guests. The domain runs when this
        returns, but it is transient until `persist` is called.
        """
        ...

    async def persist(self, vm: str) -> None:
        """Make the running domain persistent: store its configuration, so that it still exists when it is off."""
        ...

    async def shutdown(self, vm: str) -> None:
        """Ask the guest once to power off. A guest that still boots ignores it, so repeat the call later."""
        ...

    async def pause(self, vm: str) -> None:
        """Stop the CPUs of the running domain. No error if they are stopped or there is no domain."""
        ...

    async def unpause(self, vm: str) -> None:
        """Let the CPUs of a paused domain run, whatever paused it. No error if they run or there is no domain."""
        ...

    async def suspend(self, vm: str, patience: float) -> None:
        """Write the memory of a persistent domain (running or paused) to disk. The domain is off and SUSPENDED then.

        May take up to `patience` seconds. Refused leaves the domain unchanged.
        """
        ...

    async def restore(self, vm: str, host_boot: str, patience: float) -> None:
        """Start a suspended domain from its memory on disk, which is then deleted, and activate its networks.
        No error if it is not suspended.

        May take up to `patience` seconds. `look` shows `host_boot` for the domain once it is off again. Refused leaves
        it suspended.
        """
        ...

    async def discard(self, vm: str, *, leftover: bool = False) -> None:
        """Delete the memory on disk of a domain: a suspended one is OFF then. No error if there is none.

        `leftover`: do nothing to a suspended domain.
        """
        ...

    async def destroy(self, vm: str) -> None:
        """Power off by force a running or paused domain. No error if it is off."""
        ...

    async def undefine(self, vm: str) -> None:
        """Delete a domain that is off, with all data of the hypervisor about it. No error if there is none."""
        ...

    async def addresses(self, vm: str, mac: str) -> Sighting:
        """The addresses of the guest's interface. A slow agent does not delay other calls on the VM."""
        ...

    async def guest(self, vm: str) -> Guest:
        """The facts about a running guest that its agent reports. Raises AgentMissing and AgentSilent if it does not
        answer, Refused if the domain does not run. A slow agent does not delay other calls on the VM.
        """
        ...

    async def usage(self) -> Mapping[str, GuestUsage]:
        """The usage of all guests in memory, running or paused, by VM. It is one call for all of them, which waits
        neither for a guest nor for other calls on it. Foreign domains are not listed.
        """
        ...

    async def open_console(self, vm: str, *, force: bool) -> Channel:
        """The serial console of the running domain. Only one connection is open at a time: Busy is raised while another
        one is open, unless `force` closes that one. Refused if the domain does not run.
        """
        ...

    async def open_display(self, vm: str) -> Channel:
        """A new connection to the VNC server of the running domain, without authentication. Several may be open.

        Refused if the domain does not run, or has no display.
        """
        ...

    async def capacity(self) -> Capacity: ...

    async def ensure_network(self) -> None:
        """Activate the network of the guests. Raises Refused (`network_missing`, `network_inactive`) if it cannot."""
        ...

    async def watch(self, nudge: Nudge, reset: Reset = ignore, fired: Fired = ignore) -> None:
        """Call `nudge` for each event of a domain and after each (re)connection, `reset` for each reset of a guest (by
        itself or its watchdog), and `fired` when a watchdog fires. Never returns.
        """
        ...
