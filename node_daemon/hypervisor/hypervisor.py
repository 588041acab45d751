"""What the daemon asks of a hypervisor, and what it gets to see: values, and a protocol of few methods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from domain.base import Resources
from domain.contract import NOWHERE, Place, Power, Wanted, Watchdog
from domain.guest import Guest


class Unreachable(Exception):
    """The hypervisor does not answer. Nothing is known of its domains; they may well run."""


class Refused(Exception):
    """The hypervisor answered, and would not. `invalid`: it never will, since what was asked makes no sense to it.

    `code`: what the failure is called where the hypervisor keeps to it; None where the step says that.
    """

    def __init__(self, detail: str, *, invalid: bool = False, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.invalid = invalid
        self.code = code


class Busy(Refused):
    """What was asked for is somebody else's at the moment."""


class AgentMissing(Refused):
    """No agent runs in the guest: it has none, or is still booting."""


class AgentSilent(Refused):
    """An agent runs in the guest, and does not answer in time."""


@dataclass(frozen=True)
class Have:
    """What there is of one VM on this host."""

    vm: str
    power: Power
    #: the count that the domain was last started for; 0 where there is no domain
    boots: int = 0
    #: placement epoch of the document that the domain was made from
    epoch: int = 0
    #: generation of that document
    generation: int = 0
    #: where that document stood; nowhere of a domain that was made before its tag said so
    place: Place = NOWHERE
    #: what the domain was started with, where it says so
    size: Resources | None = None
    #: boot id of the host when the domain was started
    host_boot: str = ""
    #: the configuration that outlives the running domain says the same as the running domain
    kept: bool = True
    #: why the domain is off, where the hypervisor knows
    cause: Literal["guest", "crashed"] | None = None
    #: it is off since its plug was pulled
    forced: bool = False
    #: the domain is paused because of an I/O error
    stalled: bool = False
    #: memory of an earlier moment is on disk, although the domain is in memory
    remains: bool = False
    #: a domain that is not ours sits on this VM's uuid or name
    foreign: bool = False
    #: files of the VM are on this host
    files: bool = False
    #: which of the VM's disks the domain was started on: the count in its document
    disk: int = 1

    @property
    def domain(self) -> bool:
        return self.power is not Power.ABSENT


class Lease(NamedTuple):
    """`expires`: seconds since 1970; None for one that lasts for ever, or where nobody says."""

    address: str
    expires: int | None = None


@dataclass(frozen=True)
class Sighting:
    """Who says what of the addresses of a guest's interface, now; IPv4 and routable IPv6, sorted.

    A lease, and what the host's ARP table holds, may well be of an earlier boot of the guest.
    """

    #: None where no agent answers, or it knows no such interface
    agent: tuple[str, ...] | None = None
    leases: tuple[Lease, ...] = ()
    arp: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capacity:
    """What the host has: virtual CPUs, and memory in MiB."""

    vcpus: int
    memory_mib: int


class Overlay(NamedTuple):
    """A disk of a domain, and the image under it with its format: files."""

    disk: str
    base: str
    base_format: str


@dataclass(frozen=True)
class Boot:
    """All that is needed to start a VM: its document, its files, and the host's own boot id."""

    wanted: Wanted
    disk: str
    #: the image under the disk, and its format
    base: str
    base_format: str
    console: str
    host_boot: str
    #: the disk with cloud-init's data; None where the guest asks for it over HTTP
    seed: str | None = None
    #: the disks after the one that it boots from, in order
    further: tuple[Overlay, ...] = ()


def size_of(wanted: Wanted) -> Resources:
    """The size that a document asks for."""
    return Resources(vcpus=wanted.vcpus, memory_mib=wanted.memory_mib, disk_gib=wanted.disk_gib)


Nudge = Callable[[str | None], None]
"""Called with a VM's id when something happened to it, with None when anything may have happened."""


Reset = Callable[[str], None]
"""Called with a VM's id each time that its guest has reset itself."""


Fired = Callable[[str, Watchdog], None]
"""Called with a VM's id when its watchdog has fired, and with what that does; before it is done."""


def unheard(*_: object) -> None:
    """Nobody counts resets, or what watchdogs do."""


class Channel(Protocol):
    """Bytes to and from a guest. One task reads and one writes at a time."""

    async def read(self) -> bytes:
        """The next bytes; none once the other end has gone, for whatever reason."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand them over; waits while the other end takes no more. What the other end does not get is lost."""
        ...

    async def close(self) -> None:
        """Let go of it. Fine when it is closed; a task that reads gets nothing."""
        ...


class Hypervisor(Protocol):
    """Every method raises Unreachable when no answer comes in time, and Refused when the answer is no.

    Each acts on one VM alone: a call that hangs for one never delays another's.
    """

    async def domains(self) -> Mapping[str, Have]:
        """Every domain that carries our tag, by VM id. Foreign domains are not listed."""
        ...

    async def look(self, vm: str) -> Have:
        """One VM as it is now. A domain of others on its uuid or name shows as `foreign`."""
        ...

    async def start(self, boot: Boot) -> Have:
        """Start the domain anew from its document, with the guests' network active. It runs when this returns; `keep`
        makes it outlive a power-off.
        """
        ...

    async def keep(self, vm: str) -> None:
        """Store the running domain's configuration, so that the domain is still known when it is off."""
        ...

    async def shutdown(self, vm: str) -> None:
        """Ask the guest to power off, once. Guests that are still booting miss it: ask again."""
        ...

    async def pause(self, vm: str) -> None:
        """Make the CPUs of the running domain stand still. Fine when they do, and when there is no domain."""
        ...

    async def unpause(self, vm: str) -> None:
        """Let the CPUs of the paused domain go on, whatever paused it. Fine when they do, or there is no domain."""
        ...

    async def suspend(self, vm: str, patience: float) -> None:
        """Write the memory of the domain (running or paused, and kept) to disk; it is off and SUSPENDED then.

        Takes long: an answer is awaited for `patience` seconds. Refused leaves the domain as it was.
        """
        ...

    async def restore(self, vm: str, host_boot: str, patience: float) -> None:
        """Make a suspended domain go on from its memory, which then leaves the disk. Its networks are active then.
        Fine when it is not suspended.

        `host_boot` is what `look` shows of the domain from then on, once it is off. Refused leaves it suspended.
        """
        ...

    async def discard(self, vm: str) -> None:
        """Delete the memory that a domain has on disk: a suspended one is OFF then. Fine when there is none."""
        ...

    async def destroy(self, vm: str) -> None:
        """Pull the plug, of a paused domain too. Fine when it is off already."""
        ...

    async def undefine(self, vm: str) -> None:
        """Forget the domain, which must be off, with all the hypervisor keeps for it. Fine when it is unknown."""
        ...

    async def addresses(self, vm: str, mac: str) -> Sighting:
        """The addresses of the guest's interface. Delays no other call on the VM, however long its agent takes."""
        ...

    async def guest(self, vm: str) -> Guest:
        """What the agent in a running guest says of it, now. Raises AgentMissing and AgentSilent, where it does not;
        Refused when the domain does not run. Delays no other call on the VM, however long the agent takes.
        """
        ...

    async def open_console(self, vm: str, *, force: bool) -> Channel:
        """The serial console of the running domain, for one at a time. Raises Busy while somebody has it; `force` takes
        it away from them: their channel reads nothing more. Refused when the domain does not run.
        """
        ...

    async def open_display(self, vm: str) -> Channel:
        """A new connection to the VNC server of the running domain, past its authentication; several may be open.

        Refused when the domain does not run, or has no display.
        """
        ...

    async def capacity(self) -> Capacity: ...

    async def ensure_network(self) -> None:
        """Make the guests' network active. Refused (`network_missing`, `network_inactive`) where that cannot be."""
        ...

    async def watch(self, nudge: Nudge, reset: Reset = unheard, fired: Fired = unheard) -> None:
        """Call `nudge` for whatever happens to domains, and after each (re)connection; `reset` for each time that a
        guest resets itself or is reset by its watchdog; `fired` when a watchdog fires. Never returns.
        """
        ...
