"""The boots of a VM's guest: which run of its domain a guest spoke of, and how often it has booted.

A boot is seen by the node (the domain was started, the guest reset itself) and by the guest (it is ready). Either may
be the first to tell, and what both tell of is one boot.
"""

from datetime import timedelta

from domain.base import replace
from domain.vm.events import VmGuestReady, VmGuestRebooted, VmStarted
from domain.vm.state import Vm, ready_on_disk
from domain.vm.values import Phase, Ready

#: How long after a reboot that the guest itself told of its node may tell of the same one.
TOLD_TWICE = timedelta(minutes=2)


def same_run(vm: Vm, event: VmStarted) -> bool:
    """Whether the run that is told of is the one that was known, as after a silence of its node."""
    same_host = vm.host_boot is None or event.host_boot in (None, vm.host_boot)
    return event.boots == vm.booted and same_host and vm.phase not in (Phase.STOPPED, Phase.FAILED)


def begun(vm: Vm, event: VmStarted) -> Vm:
    """Its domain runs: whether that is the run that was known, or another one."""
    if same_run(vm, event):
        return replace(vm, host_boot=event.host_boot or vm.host_boot)
    ahead = vm.ready is not None and vm.ready.boots == event.boots > vm.booted  # the guest was faster than its node
    return replace(
        vm,
        booted=event.boots,
        host_boot=event.host_boot,
        resets=0,
        rebooted_at=None,
        ready=vm.ready if ahead else None,
        guest_boots=vm.guest_boots + 1,
    )


def rebooted(vm: Vm, event: VmGuestRebooted) -> Vm:
    """What the guest has told of already ends nothing."""
    resets = max(event.resets - vm.resets, 0)
    known = resets > 0 and vm.ready is not None and vm.ready.unseen and event.at - vm.ready.at < TOLD_TWICE
    seen = replace(vm.ready, unseen=False) if vm.ready is not None and known and resets == 1 else None
    return replace(
        vm,
        sequence=event.sequence,
        lease=event.lease,
        resets=event.resets,
        rebooted_at=event.at,
        ready=seen,
        guest_boots=vm.guest_boots + resets - known,
    )


def boot_of(vm: Vm, boots: int | None) -> int:
    """The boot that a guest spoke of, where it says so.

    Guests of earlier versions do not, and spoke once for each disk. So on a disk that its node has not told of yet, a
    guest was faster than its node, and spoke of the boot that is wanted.
    """
    return boots or (vm.boots if vm.disk_made < vm.disk else vm.booted)


def ready(vm: Vm, event: VmGuestReady) -> Vm:
    before, boots = vm.ready, boot_of(vm, event.boots)
    unseen = before is not None and before.boots == boots and before.boot != event.boot
    said = Ready(at=event.at, boots=boots, boot=event.boot, unseen=unseen)
    return replace(
        ready_on_disk(vm, said),
        ready=said,
        host_keys=event.host_keys,
        guest_boots=vm.guest_boots + unseen,
    )
