"""What a node reports and a guest says of itself: events, when it is news."""

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

#: How long after a guest went off it is started again: doubled each time, from the first to the last.
FIRST_RESTART, LAST_RESTART = timedelta(seconds=1), timedelta(minutes=5)
#: A guest that ran so long begins again with the first.
RAN_WELL = timedelta(minutes=10)
#: What passes by itself once there is room on the node: codes of failures after which a VM is started again; and how
#: long after, doubled each time, from the first to the last.
PASSES = ("disk_full",)
FIRST_RETRY, LAST_RETRY = timedelta(seconds=5), timedelta(minutes=10)
#: How seldom a guest that is not ready may be seen to reset itself again: one that does nothing else floods nobody.
FEW_REBOOTS = timedelta(seconds=30)
#: A guest that was ready may say so as another boot of itself, of which nobody else has told, not sooner than that.
ANOTHER_BOOT = timedelta(minutes=1)
#: Phases of a VM that has a domain, and so can lose it.
THERE = (Phase.RUNNING, Phase.PAUSED, Phase.SUSPENDED, Phase.STOPPED, Phase.LOST)


def observe(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvent]:
    """What a node's report means. Reports of an older epoch, or older than the last that mattered, mean nothing."""
    if report.node != vm.node or report.epoch != vm.epoch or older(vm, report):
        return []
    outdated = report.desired is not None and (report.desired, report.asked_boots) != (vm.desired, vm.boots)
    if outdated and (report.error is not None or report.power is not Power.ON):
        return []  # said by a daemon that had not read yet what is wanted now
    if report.error is not None:
        if vm.failure is not None and vm.failure.code == report.error.code and vm.pending is None:
            return []
        phase = left(vm, report)
        again = once_there_is_room(vm, report.error.code, phase, at)
        detail = report.error.detail
        if again:
            detail = f"{detail}; it is started again by itself once there is room"
        return [failed(vm, report, at, report.error.code, detail, phase), *again]
    match report.power:
        case Power.ON:
            return observe_on(vm, report, at)
        case Power.PAUSED:
            return reached(vm, report, at, VmPaused, Phase.PAUSED)
        case Power.SUSPENDED:
            return reached(vm, report, at, VmSuspended, Phase.SUSPENDED)
        case Power.OFF | Power.ABSENT if report.step is not None:
            return prepared(vm, report, at)
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


def older(vm: Vm, report: NodeReport) -> bool:
    """Whether something newer is known. A sequence counts within its lease alone."""
    return (report.lease, report.sequence) <= (vm.lease, vm.sequence)


def observe_on(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvent]:
    seen = {
        "at": at,
        "node": report.node,
        "sequence": report.sequence,
        "lease": report.lease,
        **addresses_of(report),
    }
    waiting = vm.pending.operation if vm.pending else None
    asked = pending_verb(vm)
    boots = min(report.boots, vm.boots)  # nobody told it to boot more often
    came_up = (
        vm.phase is not Phase.RUNNING
        or (asked is not None and asked.anew)
        or (report.size is not None and vm.running_size not in (None, report.size))  # the node itself started it anew
        or (None not in (report.host_boot, vm.host_boot) and report.host_boot != vm.host_boot)  # as after its boot
    )
    if came_up and vm.desired is Desired.ON and (boots >= vm.boots or vm.pending is None):
        if asked is resume.RESUME:
            return [VmResumed(**seen, operation=waiting)]
        of_host = {"size": report.size, "host_boot": report.host_boot}
        return [VmStarted(**seen, operation=waiting, boots=boots, **of_host)]
    rebooted: list[VmEvent] = []
    if vm.phase is Phase.RUNNING and boots == vm.booted and report.resets > vm.resets and is_due(vm, at):
        observed = {"node": report.node, "sequence": report.sequence, "lease": report.lease}
        by_watchdog = min(report.watchdog_resets, report.resets)
        rebooted.append(VmGuestRebooted(at=at, **observed, resets=report.resets, watchdog_resets=by_watchdog))
    if vm.phase is Phase.RUNNING and moved(vm, report):
        return [*rebooted, VmAddressesChanged(**seen)]
    return rebooted


def addresses_of(report: NodeReport) -> dict[str, object]:
    sources = report.address_sources
    if sources is None:
        return {"addresses": report.addresses, "address_sources": ()}
    return {"addresses": tuple(one.address for one in sources), "address_sources": sources}


def moved(vm: Vm, report: NodeReport) -> bool:
    """Whether a guest's addresses, or who says so, are news. That there are none is, once its node has asked."""
    if report.address_sources is not None:
        known = {(one.address, one.source) for one in vm.address_sources}
        said = {(one.address, one.source) for one in report.address_sources}
        return said != known or {address for address, _ in said} != set(vm.addresses)
    return bool(report.addresses) and set(report.addresses) != set(vm.addresses)


def is_due(vm: Vm, at: datetime) -> bool:
    """Whether another reboot of the guest is worth an event now; where not, the node's next report tells it again."""
    return vm.ready is not None or vm.rebooted_at is None or at - vm.rebooted_at >= FEW_REBOOTS


def reached(
    vm: Vm, report: NodeReport, at: datetime, event: type[VmPaused] | type[VmSuspended], phase: Phase
) -> list[VmEvent]:
    """It is paused or suspended: news where that is wanted. Where it is not, the node is about to change it."""
    if vm.phase is phase or vm.desired is not AT_REST[phase]:
        return []
    waiting = vm.pending.operation if vm.pending else None
    return [event(at=at, operation=waiting, node=report.node, sequence=report.sequence, lease=report.lease)]


def observe_off(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvent]:
    asked = pending_verb(vm)
    visible = vm.phase in THERE and vm.phase is not Phase.STOPPED
    if vm.desired is Desired.ABSENT or not (visible or asked is stop.STOP):
        return []
    if asked is not None and asked.boots:
        return []
    if asked is not None and asked.harmless is not None:
        why = f"it went off before it could be {asked.harmless}; start it"
        return [failed(vm, report, at, "powered_off", why, Phase.STOPPED)]
    over = stopped(vm, report, at)
    return [over, *by_policy(vm, over)]


def by_policy(vm: Vm, over: VmStopped) -> list[VmEvent]:
    """When a VM that went off by itself is started again: later each time, until it has run for long enough."""
    if vm.pending is not None or not vm.restart_policy.covers(over.cause):
        return []
    return [scheduled(vm, over.at, FIRST_RESTART, LAST_RESTART)]


def once_there_is_room(vm: Vm, code: str, phase: Phase, at: datetime) -> list[VmEvent]:
    """When a VM that was to be on and found its node's disk full is started again, whatever its policy.

    Handlers wait longer while the node says that its disk is still full.
    """
    if code not in PASSES or phase is not Phase.FAILED or vm.desired is not Desired.ON:
        return []
    return [scheduled(vm, at, FIRST_RETRY, LAST_RETRY)]


def scheduled(vm: Vm, at: datetime, first: timedelta, last: timedelta) -> VmRestartScheduled:
    ran_well = vm.started_at is not None and at - vm.started_at >= RAN_WELL
    before = 0 if ran_well else vm.restarts
    return VmRestartScheduled(at=at, due=at + min(first * 2 ** min(before, 20), last), attempt=before + 1)


def observe_absent(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvent]:
    if vm.desired is Desired.ABSENT:
        waiting = vm.pending.operation if vm.pending else None
        return [VmDeleted(at=at, operation=waiting, node=vm.node)]
    if vm.started_at is None or vm.phase not in THERE:
        return [stopped(vm, report, at)] if pending_verb(vm) is stop.STOP else []
    why = "the hypervisor no longer knows this VM; start it to define it anew on its disk"
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


def left(vm: Vm, report: NodeReport) -> Phase:
    """What a VM is after an error: one whose guest is still there, in memory or on disk, has not failed."""
    asked = pending_verb(vm)
    match report.power:
        case Power.PAUSED if vm.desired is not Desired.ABSENT:
            return Phase.PAUSED
        case Power.SUSPENDED if vm.desired is not Desired.ABSENT:
            return Phase.SUSPENDED
        case Power.ON if asked is not None and asked.harmless is not None:
            return Phase.RUNNING
        case _:
            return Phase.FAILED


def stopped(vm: Vm, report: NodeReport, at: datetime) -> VmStopped:
    """It is off: as asked for, or for the cause that the node knows."""
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
    """Once a boot: what else a guest says is no news, however often it says it. Nor is what an earlier boot said.

    Raises Rejected for a boot that the VM was never told to make: no later one would be heard.
    """
    boots = boot_of(vm, command.boots)
    if boots > max(vm.boots, vm.booted):
        detail = f"the VM was told to boot {vm.boots} times, not {boots}"
        raise Rejected("invalid_request", detail, Category.INVALID, field="boots")
    before = vm.ready
    if boots < vm.booted or (before is not None and boots < before.boots):
        return []
    if before is not None and before.boots == boots:
        again = command.boot is not None and command.boot != before.boot
        if not again or command.at - before.at < ANOTHER_BOOT:
            return []
    said = {"hostname": command.hostname, "host_keys": command.host_keys}
    return [VmGuestReady(at=command.at, **said, boots=boots, boot=command.boot)]


def buried(vm: Vm, command: RecordReport) -> list[VmEvent]:
    """What its node says of a forgotten VM: the only news is that nothing is left of it.

    A daemon on another folder, which has the node's name since, cannot know: it sees neither domain nor disk.
    """
    report = command.report
    waits = vm.forgotten is not None and not vm.cleared
    if not waits or report.node != vm.node or report.epoch != vm.epoch or older(vm, report):
        return []
    if report.power is not Power.ABSENT or report.step is not None or report.error is not None:
        return []
    if vm.folder not in (None, command.folder):
        return []
    return [VmCleared(at=command.at, node=report.node, sequence=report.sequence, lease=report.lease)]


def prepared(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvent]:
    """The node is at it: the first report of each new step of a creation is worth an event.

    So is the first one from a node that was lost in the middle of it.
    """
    asked = pending_verb(vm)
    back = vm.phase is Phase.LOST and asked is not None and asked.comes_up
    fresh = vm.phase is Phase.SCHEDULED and report.step != vm.preparing
    if report.step is None or not (back or fresh):
        return []
    operation = vm.pending.operation if vm.pending else None
    return [
        VmPreparing(
            at=at, operation=operation, node=report.node, sequence=report.sequence, lease=report.lease, step=report.step
        )
    ]
