"""The time that guests have to shut down by themselves, counted by the clock of this host.

A stop request states a duration (`Wanted.grace_seconds`). The host counts it from the moment when it first sees the
request, because the clocks of two hosts may differ. The end is stored in a file for each VM, so that a daemon continues
to count after a restart. If the disk is full, the whole duration starts again.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime

from domain.base import Message
from domain.contract import Wanted
from node_daemon.notes import Notes


def since_boot() -> float:
    """Seconds since the host booted, including those in which it slept. Nobody can set this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Countdown(Message):
    """One request to shut down, identified by its `force_after`. `ends`: seconds after this boot of the host."""

    request: AwareDatetime
    boot: str
    ends: float


class GracePeriods:
    """The countdowns of all VMs. `boot`: the host's boot id; times of `clock` are comparable within one boot only."""

    def __init__(self, folder: Path, boot: str, clock: Callable[[], float] = since_boot) -> None:
        self._notes = Notes(folder, Countdown)
        self._boot = boot
        self._clock = clock
        self._countdowns: dict[str, Countdown] = {}

    def remaining(self, want: Wanted) -> float:
        """Seconds until the domain may be destroyed; 0 if it may be now. The first call for a
        request starts its time.
        """
        if want.force_after is None:
            return 0.0
        found = self._countdowns.get(want.vm) or self._notes.read(want.vm)
        if found is None or (found.request, found.boot) != (want.force_after, self._boot):
            found = Countdown(request=want.force_after, boot=self._boot, ends=self._clock() + seconds(want))
            self._notes.write(want.vm, found)
        self._countdowns[want.vm] = found
        return max(0.0, found.ends - self._clock())

    def forget(self, vm: str) -> None:
        self._countdowns.pop(vm, None)
        self._notes.forget(vm)


def seconds(want: Wanted) -> float:
    """The grace period of a request in seconds. Handlers of earlier versions state only its end."""
    if want.grace_seconds is not None:
        return want.grace_seconds
    return (want.force_after - datetime.now(UTC)).total_seconds() if want.force_after is not None else 0.0
