"""How often guests have reset themselves, each since its domain was started; and what their watchdogs did.

A hypervisor tells of a reset once, when it happens. So the count is kept in a file for each VM: a daemon that starts
again counts on (where the disk is full, from what it finds). What happens while no daemon listens is not counted.
Resets in one second are one: a system that resets itself asks for it in several ways, until one works.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from domain.base import Message
from domain.contract import Power, Watchdog
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.notes import Notes

#: Seconds in which resets of a guest are one.
TOGETHER = 1.0


class Count(Message):
    """Of one run of a domain: the count of boots that it was started for, and in which boot of the host.

    `watchdog`: how often its watchdog has reset it, the reset that is yet to be told of among them; `ended`: its
    watchdog has powered it off.
    """

    boots: int
    host_boot: str
    resets: int = 0
    watchdog: int = 0
    ended: bool = False


@dataclass
class Fresh:
    """What was told of a domain since it was last looked at."""

    resets: int = 0
    watchdog: int = 0
    ended: bool = False


class Resets:
    """The counts of all VMs."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._notes = Notes(folder, Count)
        self._clock = clock
        self._counts: dict[str, Count] = {}
        self._noted: dict[str, float] = {}
        self._fresh: dict[str, Fresh] = {}

    def note(self, vm: str) -> bool:
        """A guest has reset itself. Whether that counts, and so is worth a look."""
        now = self._clock()
        if now - self._noted.get(vm, -TOGETHER) < TOGETHER:
            return False
        self._noted[vm] = now
        self._fresh.setdefault(vm, Fresh()).resets += 1
        return True

    def note_watchdog(self, vm: str, action: Watchdog) -> None:
        """A guest's watchdog has fired. The reset or the power-off that follows is worth a look, and told by itself."""
        fresh = self._fresh.setdefault(vm, Fresh())
        if action is Watchdog.RESET:
            fresh.watchdog += 1
        elif action is Watchdog.POWEROFF:
            fresh.ended = True

    def of(self, have: Have) -> Count:
        """The count of a domain that runs, or is off since its last run; an empty one of any other."""
        if have.power not in (Power.ON, Power.OFF):
            return Count(boots=have.boots, host_boot=have.host_boot)
        found = self._counts.get(have.vm) or self._notes.read(have.vm)
        if found is None or (found.boots, found.host_boot) != (have.boots, have.host_boot):
            found = Count(boots=have.boots, host_boot=have.host_boot)
        if (fresh := self._fresh.pop(have.vm, None)) is not None:
            found = found.model_copy(
                update={
                    "resets": found.resets + fresh.resets,
                    "watchdog": found.watchdog + fresh.watchdog,
                    "ended": found.ended or fresh.ended,
                }
            )
            self._notes.write(have.vm, found)
        self._counts[have.vm] = found
        return found

    def forget(self, vm: str) -> None:
        self._counts.pop(vm, None)
        self._fresh.pop(vm, None)
        self._noted.pop(vm, None)
        self._notes.forget(vm)
