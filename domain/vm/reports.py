"""Decides which events follow from a node's report about a VM, and from a guest's message that it is ready."""

from datetime import datetime, timedelta
from typing import assert_never

from domain.base import Category, Rejected
from domain.contract import Desired, NodeReport, Power
from domain.vm.boots import boot_of
from domain.vm.commands import RecordGuestReady, RecordReport
from domain.vm.events import (
    VmAddressesChanged,
    VmCleared,
    VmDeleted,
    VmEvent,
    VmFailed,
    VmGuestReady,
    VmGuestRebooted,
    VmPaused,
    VmPreparing,
    VmRestartScheduled,
    VmResumed,
    VmStarted,
    VmStopped,
    VmSuspended,
)
from domain.vm.state import Vm
from domain.vm.values import AT_REST, Phase
from domain.vm.verb import AnyVerb, verb_named
from domain.vm.verbs import resume, stop

#: Pause before an automatic restart of a guest that went off. It doubles with each restart, from FIRST to LAST.
FIRST_RESTART, LAST_RESTART = timedelta(seconds=1), timedelta(minutes=5)
#: After a run of at least this time, the pause begins with FIRST again.
STABLE_RUN = timedelta(minutes=10)
#: Codes of failures that end without help, such as a full disk. The VM is then started again, after a pause that
#: doubles each time, from FIRST to LAST.
TEMPORARY_FAILURES = ("disk_full",)
FIRST_RETRY, LAST_RETRY = timedelta(seconds=5), timedelta(minutes=10)
#: Minimum time between two `VmGuestRebooted` of a guest that is not ready: a reboot loop must not fill the log.
REBOOT_INTERVAL = timedelta(seconds=30)
#: Minimum time between two `VmGuestReady` of the same `boots`, of different boots by the guest's own ids.
READY_INTERVAL = timedelta(minutes=1)
#: Phases of a VM that has a domain, which may turn out to be missing.
WITH_DOMAIN = (Phase.RUNNING, Phase.PAUSED, Phase.SUSPENDED, Phase.STOPPED, Phase.LOST)


def observe(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvent]:
    """The events that follow from a node's report: none if it is outdated, or says nothing new."""
    if report.node != vm.node or report.epoch != vm.epoch or is_older(vm, report):
        return []
    outdated = report.desired is not None and (report.desired, report.asked_boots) != (vm.desired, vm.boots)
    if outdated and (report.error is not None or report.power is not Power.ON):
        return []  # the daemon had not read the latest wanted document yet
    if report.error is not None:
        if vm.failure is not None and vm.failure.code == report.error.code and vm.pending is None:
            return []
        phase = phase_after_error(vm, report)
        retry = retry_of_temporary_failure(vm, report.error.code, phase, at)
        detail = report.error.detail
        if retry:
            detail = f"{detail}; it is started again automatically once there is room"
        return [failed(vm, report, at, report.error.code, detail, phase), *retry]
    match report.power:
        case Power.ON:
            return observe_on(vm, report, at)
        case Power.PAUSED:
            return observe_halted(vm, report, at, VmPaused, Phase.PAUSED)
        case Power.SUSPENDED:
            return observe_halted(vm, report, at, VmSuspended, Phase.SUSPENDED)
        case Power.OFF | Power.ABSENT if report.step is not None:
            return observe_preparing(vm, report, at)
        case Power.OFF:
            return observe_off(vm, report, at)
        case Power.ABSENT:
            return observe_absent(vm, report, at)
        case Power.UNKNOWN:
            return []
        case _:
            assert_never(report.power)


def pending_verb(vm: Vm) -> AnyVerb | None:
    return verb_named(vm.pending.verb) if vm.pending is not None else None


def is_older(vm: Vm, report: NodeReport) -> bool:
    """Whether the report is not newer than the last one that led to an event. Sequences count within one lease."""
    return (report.lease, report.sequence) <= (vm.lease, vm.sequence)


def observe_on(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvent]:
    observed = {
        "at": at,
        "node": report.node,
        "sequence": report.sequence,
        "lease": report.lease,
        **addresses_of(report),
    }
    waiting = vm.pending.operation if vm.pending else None
    verb = pending_verb(vm)
    boots = min(report.boots, vm.boots)  # a report cannot name more boots than were ordered
    came_up = (
        vm.phase is not Phase.RUNNING
        or (verb is not None and verb.reboots)
        or (report.size is not None and vm.running_size not in (None, report.size))  # the node restarted the domain
        or (None not in (report.host_boot, vm.host_boot) and report.host_boot != vm.host_boot)  # the host has rebooted
    )
    if came_up and vm.desired is Desired.ON and (boots >= vm.boots or vm.pending is None):
        if verb is resume.RESUME:
            return [VmResumed(**observed, operation=waiting)]
        domain = {"size": report.size, "host_boot": report.host_boot}
        return [VmStarted(**observed, operation=waiting, boots=boots, **domain)]
    events: list[VmEvent] = []
    if vm.phase is Phase.RUNNING and boots == vm.booted and report.resets > vm.resets and reboot_is_due(vm, at):
        order = {"node": report.node, "sequence": report.sequence, "lease": report.lease}
        by_watchdog = min(report.watchdog_resets, report.resets)
        events.append(VmGuestRebooted(at=at, **order, resets=report.resets, watchdog_resets=by_watchdog))
    if vm.phase is Phase.RUNNING and addresses_changed(vm, report):
        events.append(VmAddressesChanged(**observed))
    return events


def addresses_of(report: NodeReport) -> dict[str, object]:
    sources = report.address_sources
    if sources is None:
        return {"addresses": report.addresses, "address_sources": ()}
    return {"addresses": tuple(one.address for one in sources), "address_sources": sources}


def addresses_changed(vm: Vm, report: NodeReport) -> bool:
    """Whether a guest's addresses or their sources have changed. None at all counts only if its node asked a source."""
    if report.address_sources is not None:
        known = {(one.address, one.source) for one in vm.address_sources}
        reported = {(one.address, one.source) for one in report.address_sources}
        return reported != known or {address for address, _ in reported} != set(vm.addresses)
    return bool(report.addresses) and set(report.addresses) != set(vm.addresses)


def reboot_is_due(vm: Vm, at: datetime) -> bool:
    """Whether another reboot of the guest gets an event now. If not, a later report of the node repeats it."""
    return vm.ready is not None or vm.rebooted_at is None or at - vm.rebooted_at >= REBOOT_INTERVAL


def observe_halted(
    vm: Vm, report: NodeReport, at: datetime, event: type[VmPaused] | type[VmSuspended], phase: Phase
) -> list[VmEvent]:
    """It is paused or suspended. No event if that is not desired, because the node is about to change it."""
    if vm.phase is phase or vm.desired is not AT_REST[phase]:
        return []
    waiting = vm.pending.operation if vm.pending else None
    return [event(at=at, operation=waiting, node=report.node, sequence=report.sequence, lease=report.lease)]


def observe_off(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvent]:
    verb = pending_verb(vm)
    was_on = vm.phase in WITH_DOMAIN and vm.phase is not Phase.STOPPED
    if vm.desired is Desired.ABSENT or not (was_on or verb is stop.STOP):
        return []
    if verb is not None and verb.boots:
        return []
    if verb is not None and verb.harmless_goal is not None:
        why = f"it went off before it could be {verb.harmless_goal}; start it"
        return [failed(vm, report, at, "powered_off", why, Phase.STOPPED)]
    stop_event = stopped(vm, report, at)
    return [stop_event, *restart_by_policy(vm, stop_event)]


def restart_by_policy(vm: Vm, event: VmStopped) -> list[VmEvent]:
    """The automatic restart of a VM that went off by itself, if its policy covers the cause."""
    if vm.pending is not None or not vm.restart_policy.covers(event.cause):
        return []
    return [restart_scheduled(vm, event.at, FIRST_RESTART, LAST_RESTART)]


def retry_of_temporary_failure(vm: Vm, code: str, phase: Phase, at: datetime) -> list[VmEvent]:
    """The automatic restart of a VM that could not start because its node's disk was full, with any policy.

    Handlers wait longer while the node reports that its disk is still full.
    """
    if code not in TEMPORARY_FAILURES or phase is not Phase.FAILED or vm.desired is not Desired.ON:
        return []
    return [restart_scheduled(vm, at, FIRST_RETRY, LAST_RETRY)]


def restart_scheduled(vm: Vm, at: datetime, first: timedelta, last: timedelta) -> VmRestartScheduled:
    """An automatic restart, after a pause from `first` to `last`, which doubles each time."""
    stable = vm.started_at is not None and at - vm.started_at >= STABLE_RUN
    before = 0 if stable else vm.restarts
    return VmRestartScheduled(at=at, due=at + min(first * 2 ** min(before, 20), last), attempt=before + 1)


def observe_absent(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvent]:
    if vm.desired is Desired.ABSENT:
        waiting = vm.pending.operation if vm.pending else None
        return [VmDeleted(at=at, operation=waiting, node=vm.node)]
    if vm.started_at is None or vm.phase not in WITH_DOMAIN:
        return [stopped(vm, report, at)] if pending_verb(vm) is stop.STOP else []
    why = "the hypervisor no longer has this VM's domain; start the VM to define it again on its disk"
    return [failed(vm, report, at, "domain_missing", why, Phase.FAILED)]


def failed(vm: Vm, report: NodeReport, at: datetime, code: str, detail: str, phase: Phase) -> VmFailed:
    return VmFailed(
        at=at,
        operation=vm.pending.operation if vm.pending else None,
        node=report.node,
        sequence=report.sequence,
        lease=report.lease,
        code=code,
        detail=detail,
        phase=phase,
    )


def phase_after_error(vm: Vm, report: NodeReport) -> Phase:
    """The phase of a VM after an error: not `failed` if its guest still exists, in memory or on disk."""
    verb = pending_verb(vm)
    match report.power:
        case Power.PAUSED if vm.desired is not Desired.ABSENT:
            return Phase.PAUSED
        case Power.SUSPENDED if vm.desired is not Desired.ABSENT:
            return Phase.SUSPENDED
        case Power.ON if verb is not None and verb.harmless_goal is not None:
            return Phase.RUNNING
        case _:
            return Phase.FAILED


def stopped(vm: Vm, report: NodeReport, at: datetime) -> VmStopped:
    """It is off: as requested, or for the cause that the node reports."""
    requested = vm.desired is Desired.OFF
    return VmStopped(
        at=at,
        operation=vm.pending.operation if vm.pending and requested else None,
        node=report.node,
        sequence=report.sequence,
        lease=report.lease,
        cause="requested" if requested else report.cause or "unknown",
        forced=report.forced,
    )


def guest_ready(vm: Vm, command: RecordGuestReady) -> list[VmEvent]:
    """One event for each boot. Repeats and messages of earlier boots are ignored.

    Raises Rejected for a boot that was never ordered: after it, the messages of real boots would be ignored.
    """
    boots = boot_of(vm, command.boots)
    if boots > max(vm.boots, vm.booted):
        detail = f"there was no boot {boots}: the VM was ordered to boot {vm.boots} times"
        raise Rejected("invalid_request", detail, Category.INVALID, field="boots")
    before = vm.ready
    if boots < vm.booted or (before is not None and boots < before.boots):
        return []
    if before is not None and before.boots == boots:
        rebooted = command.boot is not None and command.boot != before.boot
        if not rebooted or command.at - before.at < READY_INTERVAL:
            return []
    guest = {"hostname": command.hostname, "host_keys": command.host_keys}
    return [VmGuestReady(at=command.at, **guest, boots=boots, boot=command.boot)]


def observe_forgotten(vm: Vm, command: RecordReport) -> list[VmEvent]:
    """A report about a forgotten VM. Only one that nothing of the VM is left leads to an event.

    The report of a daemon with another folder does not count, because the VM's disk is in the first daemon's folder.
    """
    report = command.report
    waits = vm.forgotten is not None and not vm.cleared
    if not waits or report.node != vm.node or report.epoch != vm.epoch or is_older(vm, report):
        return []
    if report.power is not Power.ABSENT or report.step is not None or report.error is not None:
        return []
    if vm.folder not in (None, command.folder):
        return []
    return [VmCleared(at=command.at, node=report.node, sequence=report.sequence, lease=report.lease)]


def observe_preparing(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvent]:
    """The node prepares the VM: one event for each new step, and for the first report of a node that was lost."""
    verb = pending_verb(vm)
    node_is_back = vm.phase is Phase.LOST and verb is not None and verb.starts
    new_step = vm.phase is Phase.SCHEDULED and report.step != vm.preparing
    if report.step is None or not (node_is_back or new_step):
        return []
    operation = vm.pending.operation if vm.pending else None
    return [
        VmPreparing(
            at=at, operation=operation, node=report.node, sequence=report.sequence, lease=report.lease, step=report.step
        )
    ]
