"""The addresses of one running guest, and the source of each. They are polled; less often once there are some.

- The guest agent comes first. If it answered in this boot, its last answer is valid until it gives another one.
- Then come DHCP leases, then the host's ARP table. Both keep entries after a guest ends, so an entry that was there
  when this boot began belongs to an earlier boot. A lease counts once it was renewed, an ARP entry once it was absent.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from domain.base import Message
from domain.contract import Power
from domain.guest import AddressSource
from node_daemon.hypervisor.hypervisor import Have, Hypervisor, Refused, Sighting, Unreachable
from node_daemon.notes import Notes

#: Seconds between two polls: while there is no address, and afterwards.
MISSING, KNOWN = 2.0, 15.0
#: Seconds after the start of a boot in which no guest has an address yet: entries that are seen then are older.
EARLY = 1.0
#: Seconds before the first poll, so that the report of the start is sent first. Each poll begins a thread, and the
#: event loop waits until that runs, which takes milliseconds while QEMU starts.
LATER = 0.05

Known = tuple[AddressSource, ...]


class Earlier(Message):
    """The DHCP leases (each with its expiry) and ARP entries that existed when a boot of a guest began."""

    boots: int
    host_boot: str
    resets: int
    leases: dict[str, int | None] = Field(default_factory=dict)
    arp: tuple[str, ...] = ()

    def plus(self, sighting: Sighting) -> "Earlier":
        """A copy with all entries of this sighting added."""
        leases = {**self.leases, **{lease.address: lease.expires for lease in sighting.leases}}
        return self.model_copy(update={"leases": leases, "arp": tuple(sorted({*self.arp, *sighting.arp}))})

    def without(self, sighting: Sighting) -> "Earlier":
        """A copy without the ARP entries that the sighting no longer has. If they appear again, they are new."""
        return self.model_copy(update={"arp": tuple(one for one in self.arp if one in sighting.arp)})

    def of_boot(self, other: "Earlier") -> bool:
        return (self.boots, self.host_boot, self.resets) == (other.boots, other.host_boot, other.resets)


def current(sighting: Sighting, earlier: Earlier, before: Known | None) -> Known:
    """The addresses of a guest. `before`: those known in this boot; they stay while no source names any."""
    if sighting.agent is not None:
        return _by("agent", sighting.agent)
    if before and before[0].source == "agent":
        return before
    leases = [
        lease.address
        for lease in sighting.leases
        if lease.expires is None or earlier.leases.get(lease.address, 0) != lease.expires
    ]
    found = _by("lease", leases) or _by("arp", [address for address in sighting.arp if address not in earlier.arp])
    return found or before or ()


def _by(source: Literal["agent", "lease", "arp"], addresses: "tuple[str, ...] | list[str]") -> Known:
    return tuple(AddressSource(address=address, source=source) for address in addresses)


class EarlierBoots(Notes[Earlier]):
    """The notes on earlier boots, one file for each VM. A daemon that is restarted during a boot reads them, so it does
    not mistake an old lease for a new one. If the disk is full it may, until the guest gets its own lease.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Earlier)

    def write(self, vm: str, note: Earlier) -> None:
        """Store the note; an empty one is deleted instead."""
        if note.leases or note.arp:
            super().write(vm, note)
        else:
            self.forget(vm)


class Addresses:
    """`known`: the addresses in the present boot; None before the first poll. `changed` is called when they change."""

    def __init__(
        self,
        vm: str,
        hypervisor: Hypervisor,
        notes: EarlierBoots,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vm = vm
        self._hypervisor = hypervisor
        self._notes = notes
        self._changed = changed
        self._clock = clock
        self._boot: Earlier | None = None
        #: entries seen before this time belong to an earlier boot
        self._early_until = 0.0
        #: whether addresses may have been reported before, so that their absence has to be reported too
        self._reported = False
        self._followed = False
        self._last = Sighting()
        self._task: asyncio.Task[None] | None = None
        self.known: Known | None = None

    def follow(self, mac: str, have: Have, resets: int) -> None:
        """Poll while the domain runs; stop when it does not. A change of `resets` is another boot of the guest."""
        if have.power is Power.UNKNOWN:
            return
        first, self._followed = not self._followed, True
        if have.power is not Power.ON:
            self.stop()
            if have.power in (Power.OFF, Power.ABSENT):
                self._boot, self.known = None, None
            return
        boot = Earlier(boots=have.boots, host_boot=have.host_boot, resets=resets)
        if self._boot is None or not boot.of_boot(self._boot):
            self.stop()
            self._begin(boot, first)
        if self._task is None:
            self._task = asyncio.create_task(self._poll(mac), name=f"addresses {self._vm}")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def forget(self) -> None:
        self._notes.forget(self._vm)

    def _begin(self, boot: Earlier, first: bool) -> None:
        """Another boot. If the daemon started during it (`first`), only the note says what was there when it began."""
        self._reported, self.known = first or bool(self.known), None
        if first:
            recorded = self._notes.read(self._vm)
            self._boot = recorded if recorded is not None and recorded.of_boot(boot) else boot
            self._early_until = 0.0
        else:
            self._boot = boot.plus(self._last)
            self._early_until = self._clock() + EARLY
            self._notes.write(self._vm, self._boot)

    async def _poll(self, mac: str) -> None:
        await asyncio.sleep(LATER)
        while True:
            with contextlib.suppress(Unreachable, Refused):
                self._take(await self._hypervisor.addresses(self._vm, mac))
            await asyncio.sleep(KNOWN if self.known else MISSING)

    def _take(self, sighting: Sighting) -> None:
        if (boot := self._boot) is None:
            return
        boot = boot.plus(sighting) if self._clock() < self._early_until else boot.without(sighting)
        if boot != self._boot:
            self._notes.write(self._vm, boot)
        self._boot, self._last = boot, sighting
        known = current(sighting, boot, self.known)
        if known == self.known:
            return
        self.known = known
        if known or self._reported:  # a guest without addresses so far needs no report
            self._reported = bool(known)
            self._changed()
