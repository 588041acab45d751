"""Decides which events follow from a command on a VM. Pure: time and ids come with the command.

The rules of each verb are in its own file (`verbs/`). Here are the rules that all verbs share, and those of the
platform's own commands.
"""

from typing import assert_never

from domain.accepted_requests import same_request
from domain.base import Category, Rejected
from domain.contract import Desired
from domain.vm import consoles
from domain.vm.commands import (
    CloseConsole,
    DeferVm,
    DropVm,
    ExpireOperation,
    LoseVm,
    OpenConsole,
    PlatformCommands,
    RecordGuestReady,
    RecordReport,
    RestartByPolicy,
    ScheduleVm,
    VmCommands,
    VmOperationCommand,
)
from domain.vm.deadlines import until_up
from domain.vm.events import VmEvent, VmLost, VmOperationTimedOut, VmRestartedByPolicy
from domain.vm.reports import guest_ready, observe, observe_forgotten
from domain.vm.scheduling import defer, drop, schedule
from domain.vm.state import Vm
from domain.vm.values import STARTED_AGAIN, VISIBLE, Phase
from domain.vm.verb import WAS_DELETED, AnyVerb, admit
from domain.vm.verbs import VERBS, change, tag
from domain.vm.verbs.create import CreateVm, create
from domain.vm.verbs.stop import BY_POLICY

_VERB_OF: dict[type[VmOperationCommand], AnyVerb] = {verb.command: verb for verb in VERBS}


def decide(vm: Vm | None, command: VmCommands) -> list[VmEvent]:
    """The events that follow from a command; none if it changes nothing. Raises Rejected."""
    if isinstance(command, CreateVm):
        return create(vm, command)
    if vm is None:
        raise Rejected("vm_not_found", f"there is no VM {command.vm} in this project", Category.NOT_FOUND, field="vm")
    if isinstance(command, VmOperationCommand):
        return decide_verb(vm, command, _VERB_OF[type(command)])
    if vm.phase is Phase.DELETED and not isinstance(command, OpenConsole | CloseConsole):
        return [*observe_forgotten(vm, command)] if isinstance(command, RecordReport) else []
    return decide_platform(vm, command)


def decide_verb(vm: Vm, command: VmOperationCommand, verb: AnyVerb) -> list[VmEvent]:
    """The events that follow from a command of a caller; none if it is a repeat. Raises Rejected."""
    if is_repeat(vm, command, verb):
        return []
    if vm.phase is Phase.DELETED:
        raise Rejected("vm_deleted", WAS_DELETED, Category.GONE)
    events = verb.special_case(vm, command) if verb.special_case is not None else None
    if events is not None:
        return [*events]
    return [*verb.decide(vm, command, admit(vm, verb, force=verb.by_force(vm, command)))]


def is_repeat(vm: Vm, command: VmOperationCommand, verb: AnyVerb) -> bool:
    """Whether this request was accepted before. A repeat of the earlier verb `tag` comes as `change`."""
    known = vm.operations.get(command.operation)
    tagged = verb is change.CHANGE and known is not None and known.verb == tag.NAME
    return same_request(known, tag.NAME if tagged else verb.name, command.fingerprint)


def decide_platform(vm: Vm, command: PlatformCommands) -> list[VmEvent]:
    """The events that follow from one of the platform's own commands."""
    match command:
        case ScheduleVm():
            return [*schedule(vm, command)]
        case DeferVm():
            return [*defer(vm, command)]
        case DropVm():
            return [*drop(vm, command)]
        case RecordReport():
            return [*observe(vm, command.report, command.at)]
        case RecordGuestReady():
            return [*guest_ready(vm, command)]
        case ExpireOperation():
            if vm.pending is None or vm.pending.operation != command.operation or command.at < vm.pending.deadline:
                return []
            return [VmOperationTimedOut(at=command.at, operation=vm.pending.operation, verb=vm.pending.verb)]
        case RestartByPolicy():
            return [*restart_by_policy(vm, command)]
        case LoseVm():
            if vm.node != command.node or vm.phase not in VISIBLE:
                return []
            return [VmLost(at=command.at, node=command.node)]
        case OpenConsole() | CloseConsole():
            return [*consoles.decide(vm, command)]
        case _:
            assert_never(command)


def restart_by_policy(vm: Vm, command: RestartByPolicy) -> list[VmRestartedByPolicy]:
    due = vm.restart_at is not None and vm.restart_at <= command.at
    if not due or vm.phase not in STARTED_AGAIN or vm.pending is not None or vm.desired is not Desired.OFF:
        return []
    return [
        VmRestartedByPolicy(
            at=command.at,
            operation=command.operation,
            fingerprint=BY_POLICY,
            deadline=command.at + until_up(vm),
            attempt=vm.restarts,
        )
    ]
