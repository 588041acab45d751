"""What a node's report means: events, when it is news."""

from datetime import datetime
from typing import assert_never

from domain.contract import Desired, NodeReport, Power
from domain.vm.events import (
    VmAddressesChanged,
    VmDeleted,
    VmEvents,
    VmFailed,
    VmPreparing,
    VmStarted,
    VmStopped,
)
from domain.vm.state import Vm
from domain.vm.values import Phase, Verb


def observe(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvents]:
    """What a node's report means. Reports of an older epoch, or older than the last that mattered, mean nothing."""
    if report.node != vm.node or report.epoch != vm.epoch or report.sequence <= vm.sequence:
        return []
    outdated = report.desired is not None and (report.desired, report.asked_boots) != (vm.desired, vm.boots)
    if outdated and (report.error is not None or report.power is not Power.ON):
        return []  # said by a daemon that had not read yet what is wanted now
    pending = vm.pending
    waiting = pending.operation if pending else None
    stopping = pending is not None and pending.verb is Verb.STOP
    if report.error is not None:
        if vm.failure is not None and vm.failure.code == report.error.code and pending is None:
            return []
        return [
            VmFailed(
                at=at,
                operation=waiting,
                node=report.node,
                sequence=report.sequence,
                code=report.error.code,
                detail=report.error.detail,
            )
        ]
    match report.power:
        case Power.ON:
            return observe_on(vm, report, at)
        case Power.OFF | Power.ABSENT if report.step is not None:
            return prepared(vm, report, at)
        case Power.OFF:
            if vm.desired is Desired.ABSENT or (vm.phase not in (Phase.RUNNING, Phase.LOST) and not stopping):
                return []
            if pending is not None and pending.verb in (Verb.CREATE, Verb.RESTART, Verb.START):
                return []
            return [stopped(vm, report, at)]
        case Power.ABSENT:
            if vm.desired is Desired.ABSENT:
                return [VmDeleted(at=at, operation=waiting, node=vm.node)]
            if vm.started_at is None or vm.phase not in (Phase.RUNNING, Phase.STOPPED, Phase.LOST):
                return [stopped(vm, report, at)] if stopping else []
            return [
                VmFailed(
                    at=at,
                    operation=waiting,
                    node=report.node,
                    sequence=report.sequence,
                    code="domain_missing",
                    detail="the hypervisor no longer knows this VM; start it to define it anew on its disk",
                )
            ]
        case Power.UNKNOWN:
            return []
        case _:
            assert_never(report.power)


def observe_on(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvents]:
    waiting = vm.pending.operation if vm.pending else None
    came_up = vm.phase is not Phase.RUNNING or (vm.pending is not None and vm.pending.verb is Verb.RESTART)
    if came_up and vm.desired is Desired.ON and (report.boots >= vm.boots or vm.pending is None):
        return [
            VmStarted(
                at=at,
                operation=waiting,
                node=report.node,
                sequence=report.sequence,
                boots=report.boots,
                addresses=report.addresses,
            )
        ]
    if vm.phase is Phase.RUNNING and report.addresses and set(report.addresses) != set(vm.addresses):
        return [VmAddressesChanged(at=at, node=report.node, sequence=report.sequence, addresses=report.addresses)]
    return []


def stopped(vm: Vm, report: NodeReport, at: datetime) -> VmStopped:
    """It is off: as asked for, or for the cause that the node knows."""
    requested = vm.desired is Desired.OFF
    return VmStopped(
        at=at,
        operation=vm.pending.operation if vm.pending and requested else None,
        node=report.node,
        sequence=report.sequence,
        cause="requested" if requested else report.cause or "unknown",
    )


def prepared(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvents]:
    """The node is at it: the first report of each new step of a creation is worth an event.

    So is the first one from a node that was lost in the middle of it.
    """
    back = vm.phase is Phase.LOST and vm.pending is not None and vm.pending.verb in (Verb.CREATE, Verb.START)
    fresh = vm.phase is Phase.SCHEDULED and report.step != vm.preparing
    if report.step is None or not (back or fresh):
        return []
    operation = vm.pending.operation if vm.pending else None
    return [VmPreparing(at=at, operation=operation, node=report.node, sequence=report.sequence, step=report.step)]
