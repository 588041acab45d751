"""How long guests still have to shut down by themselves, by this host's own clock.

A request says for how long (`Wanted.grace_seconds`). That is counted from when this host first saw it: the instant at
which another host's clock would be there means nothing here. It is kept in a file for each VM, so a daemon that starts
again counts on. Where the disk is full, it gives the guest its time anew.
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
    """Seconds since the host came up, also those that it slept. Nobody sets this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Countdown(Message):
    """One request to shut down, named by its `force_after`; `ends`: seconds on the clock of this boot of the host."""

    request: AwareDatetime
    boot: str
    ends: float


class GracePeriods:
    """The countdowns of all VMs. `boot`: the host's boot id, without which `clock` means nothing."""

    def __init__(self, folder: Path, boot: str, clock: Callable[[], float] = since_boot) -> None:
        self._notes = Notes(folder, Countdown)
        self._boot = boot
        self._clock = clock
        self._countdowns: dict[str, Countdown] = {}

    def left(self, want: Wanted) -> float:
        """Seconds until the plug may be pulled; 0 when it may be now. The first look at a request starts its time."""
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
    """How long the guest is given. Handlers of earlier versions say only until when."""
    if want.grace_seconds is not None:
        return want.grace_seconds
    return (want.force_after - datetime.now(UTC)).total_seconds() if want.force_after is not None else 0.0
