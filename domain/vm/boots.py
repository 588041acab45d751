"""The boots of a VM's guest: to which run of the domain a message of the guest belongs, and how often it has booted.

The node observes a boot (the domain was started, or the guest reset itself), and the guest reports that it is ready.
Either may come first, and both together count as one boot.
"""

from datetime import timedelta

from domain.base import replace
from domain.vm.events import VmGuestReady, VmGuestRebooted, VmStarted
from domain.vm.state import Vm, ready_on_disk
from domain.vm.values import Phase, Ready

#: How long after the guest's own message about a reboot the node's report may be about the same reboot.
SAME_REBOOT = timedelta(minutes=2)


def same_run(vm: Vm, event: VmStarted) -> bool:
    """Whether the event is about the run of the domain that was known before, as after a time without reports."""
    same_host = vm.host_boot is None or event.host_boot in (None, vm.host_boot)
    return event.boots == vm.booted and same_host and vm.phase not in (Phase.STOPPED, Phase.FAILED)


def begun(vm: Vm, event: VmStarted) -> Vm:
    """The VM after its domain runs. It is a new boot unless it is the run that was known before."""
    if same_run(vm, event):
        return replace(vm, host_boot=event.host_boot or vm.host_boot)
    ahead = (
        vm.ready is not None and vm.ready.boots == event.boots > vm.booted
    )  # the guest's message came before the node's report
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
    """The VM after its guest rebooted. It stays ready if the guest has reported this reboot itself already."""
    resets = max(event.resets - vm.resets, 0)
    known = resets > 0 and vm.ready is not None and vm.ready.unseen and event.at - vm.ready.at < SAME_REBOOT
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
    """The boot that a guest's message belongs to: `boots`, if the message has it.

    Messages of earlier versions do not. They came once for each disk. So if the node has not reported a boot on the
    present disk yet, the message came before that report, and belongs to the desired boot.
    """
    return boots or (vm.boots if vm.disk_made < vm.disk else vm.booted)


def ready(vm: Vm, event: VmGuestReady) -> Vm:
    before, boots = vm.ready, boot_of(vm, event.boots)
    unseen = before is not None and before.boots == boots and before.boot != event.boot
    message = Ready(at=event.at, boots=boots, boot=event.boot, unseen=unseen)
    return replace(
        ready_on_disk(vm, message),
        ready=message,
        host_keys=event.host_keys,
        guest_boots=vm.guest_boots + unseen,
    )
