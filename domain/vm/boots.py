"""The boots of a VM's guest: which run of its domain a guest spoke of, and how often it has booted.

A boot is seen by the node (the domain was started, the guest reset itself) and by the guest (it is ready). Either may
be the first to tell, and what both tell of is one boot.
"""

from datetime import datetime, timedelta
from typing import Protocol

from domain.vm.events import VmGuestReady, VmGuestRebooted, VmStarted
from domain.vm.values import Phase, Ready

#: How long after a reboot that the guest itself told of its node may tell of the same one.
TOLD_TWICE = timedelta(minutes=2)


class Booted(Protocol):
    """What a VM says of its boots; `Vm` in `state.py` describes the fields."""

    @property
    def phase(self) -> Phase: ...
    @property
    def boots(self) -> int: ...
    @property
    def disk(self) -> int: ...
    @property
    def disk_made(self) -> int: ...
    @property
    def booted(self) -> int: ...
    @property
    def host_boot(self) -> str | None: ...
    @property
    def resets(self) -> int: ...
    @property
    def guest_boots(self) -> int: ...
    @property
    def ready(self) -> Ready | None: ...
    @property
    def ready_at(self) -> datetime | None: ...
    @property
    def first_ready_at(self) -> datetime | None: ...


def same_run(vm: Booted, event: VmStarted) -> bool:
    """Whether the run that is told of is the one that was known, as after a silence of its node."""
    same_host = vm.host_boot is None or event.host_boot in (None, vm.host_boot)
    return event.boots == vm.booted and same_host and vm.phase not in (Phase.STOPPED, Phase.FAILED)


def begun(vm: Booted, event: VmStarted) -> dict[str, object]:
    """Its domain runs: whether that is the run that was known, or another one."""
    if same_run(vm, event):
        return {"host_boot": event.host_boot or vm.host_boot}
    ahead = vm.ready is not None and vm.ready.boots == event.boots > vm.booted  # the guest was faster than its node
    run = {"booted": event.boots, "host_boot": event.host_boot, "resets": 0, "rebooted_at": None}
    return {**run, "ready": vm.ready if ahead else None, "guest_boots": vm.guest_boots + 1}


def rebooted(vm: Booted, event: VmGuestRebooted) -> dict[str, object]:
    """What the guest has told of already ends nothing."""
    resets = max(event.resets - vm.resets, 0)
    known = resets > 0 and vm.ready is not None and vm.ready.unseen and event.at - vm.ready.at < TOLD_TWICE
    seen = vm.ready.model_copy(update={"unseen": False}) if vm.ready is not None and known and resets == 1 else None
    observed = {"sequence": event.sequence, "lease": event.lease, "resets": event.resets, "rebooted_at": event.at}
    return {**observed, "ready": seen, "guest_boots": vm.guest_boots + resets - known}


def boot_of(vm: Booted, boots: int | None) -> int:
    """The boot that a guest spoke of, where it says so.

    Guests of earlier versions do not, and spoke once for each disk. So on a disk that its node has not told of yet, a
    guest was faster than its node, and spoke of the boot that is wanted.
    """
    return boots or (vm.boots if vm.disk_made < vm.disk else vm.booted)


def ready(vm: Booted, event: VmGuestReady) -> dict[str, object]:
    before, boots = vm.ready, boot_of(vm, event.boots)
    unseen = before is not None and before.boots == boots and before.boot != event.boot
    said = Ready(at=event.at, boots=boots, boot=event.boot, unseen=unseen)
    times = {"first_ready_at": vm.first_ready_at or vm.ready_at or event.at, "ready_at": event.at, "ready": said}
    return {**times, "host_keys": event.host_keys, "guest_boots": vm.guest_boots + unseen}
