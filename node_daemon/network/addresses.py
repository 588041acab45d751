"""The addresses of one running guest, asked for until it has some and now and then afterwards; and who says so.

- The agent in the guest comes first: what it says is all there is. Where it was heard in this boot, its word stands
  until it says something else.
- Then DHCP leases, then the host's ARP table. Neither forgets when a guest ends: what they already said when this boot
  began is of an earlier one. A lease counts once it was given anew, an ARP entry once it was away.
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

#: Seconds between two questions: while there is no address, and afterwards.
MISSING, KNOWN = 2.0, 15.0
#: Seconds after the start of a boot in which no guest has an address of its own yet: what is seen then is older.
EARLY = 1.0

Known = tuple[AddressSource, ...]


class Earlier(Message):
    """What was already there when a boot of a guest began: leases with their ends, and ARP entries."""

    boots: int
    host_boot: str
    resets: int
    leases: dict[str, int | None] = Field(default_factory=dict)
    arp: tuple[str, ...] = ()

    def seen(self, sighting: Sighting) -> "Earlier":
        """The same, and all that this sighting has."""
        leases = {**self.leases, **{lease.address: lease.expires for lease in sighting.leases}}
        return self.model_copy(update={"leases": leases, "arp": tuple(sorted({*self.arp, *sighting.arp}))})

    def without(self, sighting: Sighting) -> "Earlier":
        """The same, but for ARP entries that this sighting has no more: where they come again they are new."""
        return self.model_copy(update={"arp": tuple(one for one in self.arp if one in sighting.arp)})

    def of_boot(self, other: "Earlier") -> bool:
        return (self.boots, self.host_boot, self.resets) == (other.boots, other.host_boot, other.resets)


def judged(sighting: Sighting, earlier: Earlier, before: Known | None) -> Known:
    """The addresses that a guest has. `before`: what was known of this boot; it stands where nobody says anything."""
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
    """What is known of all VMs' earlier boots, in a file each: a daemon that starts again in the middle of a boot does
    not take an old lease for a new one. Where the disk is full it may, until the guest has one of its own.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Earlier)

    def write(self, vm: str, note: Earlier) -> None:
        """One that says nothing is not kept."""
        if note.leases or note.arp:
            super().write(vm, note)
        else:
            self.forget(vm)


class Addresses:
    """`known` is of the present boot only, and None until somebody was asked. `changed` is called when it changes."""

    def __init__(
        self,
        vm: str,
        hypervisor: Hypervisor,
        books: EarlierBoots,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vm = vm
        self._hypervisor = hypervisor
        self._books = books
        self._changed = changed
        self._clock = clock
        self._boot: Earlier | None = None
        #: what is seen until then was there before this boot
        self._early_until = 0.0
        #: whether somebody may count on addresses that were known before
        self._had = False
        self._looked = False
        self._last = Sighting()
        self._task: asyncio.Task[None] | None = None
        self.known: Known | None = None

    def follow(self, mac: str, have: Have, resets: int) -> None:
        """Ask from now on, or stop asking, as the domain runs or not; `resets` of its guest make another boot."""
        if have.power is Power.UNKNOWN:
            return
        first, self._looked = not self._looked, True
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
            self._task = asyncio.create_task(self._ask(mac), name=f"addresses {self._vm}")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def forget(self) -> None:
        self._books.forget(self._vm)

    def _begin(self, boot: Earlier, first: bool) -> None:
        """Another boot. Of one that was under way when this daemon came, only the books know how it began."""
        self._had, self.known = first or bool(self.known), None
        if first:
            recorded = self._books.read(self._vm)
            self._boot = recorded if recorded is not None and recorded.of_boot(boot) else boot
            self._early_until = 0.0
        else:
            self._boot = boot.seen(self._last)
            self._early_until = self._clock() + EARLY
            self._books.write(self._vm, self._boot)

    async def _ask(self, mac: str) -> None:
        while True:
            with contextlib.suppress(Unreachable, Refused):
                self._take(await self._hypervisor.addresses(self._vm, mac))
            await asyncio.sleep(KNOWN if self.known else MISSING)

    def _take(self, sighting: Sighting) -> None:
        if (boot := self._boot) is None:
            return
        boot = boot.seen(sighting) if self._clock() < self._early_until else boot.without(sighting)
        if boot != self._boot:
            self._books.write(self._vm, boot)
        self._boot, self._last = boot, sighting
        known = judged(sighting, boot, self.known)
        if known == self.known:
            return
        self.known = known
        if known or self._had:  # that a guest has none yet is no news
            self._had = bool(known)
            self._changed()
