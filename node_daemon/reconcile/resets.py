"""The number of resets of each guest since its domain was started, and the actions of its watchdog.

A hypervisor reports a reset once, when it happens. So the count is stored in a file for each VM, and a daemon continues
it after a restart (if the disk is full, from the last stored count). Resets while no daemon runs are not counted.
Several resets within one second count as one: a guest that resets itself tries several methods until one works.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from domain.base import Message
from domain.contract import Power, Watchdog
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.notes import Notes

#: Resets of a guest within so many seconds count as one.
TOGETHER = 1.0


class Count(Message):
    """The count for one run of a domain. `boots` and `host_boot` identify the run.

    `watchdog`: number of resets by its watchdog, including one that the hypervisor has not reported as a reset yet;
    `ended`: its watchdog has powered it off.
    """

    boots: int
    host_boot: str
    resets: int = 0
    watchdog: int = 0
    ended: bool = False


@dataclass
class Uncounted:
    """What the hypervisor reported of a domain since the last call of `Resets.of`."""

    resets: int = 0
    watchdog: int = 0
    ended: bool = False


class Resets:
    """The counts of all VMs."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._notes = Notes(folder, Count)
        self._clock = clock
        self._counts: dict[str, Count] = {}
        self._last_reset: dict[str, float] = {}
        self._uncounted: dict[str, Uncounted] = {}

    def note(self, vm: str) -> bool:
        """Record that a guest has reset itself. True if it counts, so that the VM has to be reported."""
        now = self._clock()
        if now - self._last_reset.get(vm, -TOGETHER) < TOGETHER:
            return False
        self._last_reset[vm] = now
        self._uncounted.setdefault(vm, Uncounted()).resets += 1
        return True

    def note_watchdog(self, vm: str, action: Watchdog) -> None:
        """Record that a guest's watchdog has fired. The reset or power-off that follows is an event of its own."""
        uncounted = self._uncounted.setdefault(vm, Uncounted())
        if action is Watchdog.RESET:
            uncounted.watchdog += 1
        elif action is Watchdog.POWEROFF:
            uncounted.ended = True

    def of(self, have: Have) -> Count:
        """The count of a domain that runs or is off. For any other power state it is empty."""
        if have.power not in (Power.ON, Power.OFF):
            return Count(boots=have.boots, host_boot=have.host_boot)
        found = self._counts.get(have.vm) or self._notes.read(have.vm)
        if found is None or (found.boots, found.host_boot) != (have.boots, have.host_boot):
            found = Count(boots=have.boots, host_boot=have.host_boot)
        if (uncounted := self._uncounted.pop(have.vm, None)) is not None:
            found = found.model_copy(
                update={
                    "resets": found.resets + uncounted.resets,
                    "watchdog": found.watchdog + uncounted.watchdog,
                    "ended": found.ended or uncounted.ended,
                }
            )
            self._notes.write(have.vm, found)
        self._counts[have.vm] = found
        return found

    def forget(self, vm: str) -> None:
        self._counts.pop(vm, None)
        self._uncounted.pop(vm, None)
        self._last_reset.pop(vm, None)
        self._notes.forget(vm)
