"""VMs in every situation that matters, each told as the commands that led there."""

from typing import Any

from domain import vm
from domain.contract import NodeReport, Power, ReportError
from domain.guest import AddressSource
from domain.vm import (
    AbandonVm,
    CreateVm,
    DeferVm,
    DeleteVm,
    ExpireOperation,
    ForgetVm,
    LoseVm,
    PauseVm,
    Phase,
    RecordReport,
    RestartVm,
    ResumeVm,
    ScheduleVm,
    Spec,
    StartVm,
    StopVm,
    SuspendVm,
    Vm,
    VmOperationCommand,
)
from domain.vm.verbs.rescue import RescueVm, UnrescueVm
from tests.domain.story import Story, at, stored, uid

ID = uid(1)
NODE = "n1"
SPEC = Spec(vcpus=1, memory_mib=512, disk_gib=4)
LATER = 10_000_000
"""Seconds after which every deadline has passed."""


def create(**more: Any) -> CreateVm:
    given = {"vm": ID, "operation": uid(10), "fingerprint": "f", "project": "p", "name": "web", "image": "base"}
    return CreateVm(**{**given, "spec": SPEC, "at": at(), **more})


def ask(command: type[VmOperationCommand], operation: int = 20, **more: Any) -> Any:
    """One of the later verbs, as a new operation unless told otherwise."""
    return command(**{"vm": ID, "operation": uid(operation), "fingerprint": "f", "at": at(100), **more})


def schedule(node: str = NODE) -> ScheduleVm:
    return ScheduleVm(vm=ID, at=at(1), node=node)


def report(power: Power, sequence: int = 1000, **more: Any) -> RecordReport:
    seconds, folder = more.pop("seconds", 50), more.pop("folder", None)
    given = {"vm": ID, "node": NODE, "epoch": 1, "sequence": sequence, "at": at(), "power": power}
    return RecordReport(vm=ID, at=at(seconds), report=NodeReport(**{**given, **more}), folder=folder)


def broken(sequence: int = 1000, code: str = "image_invalid", **more: Any) -> RecordReport:
    return report(Power.OFF, sequence, error=ReportError(code=code, detail="no space left"), **more)


def stalled(sequence: int = 1000, **more: Any) -> RecordReport:
    error = ReportError(code="io_error", detail="the disk could not be written")
    return report(Power.PAUSED, sequence, boots=1, error=error, **more)


def forget(operation: int = 20, **more: Any) -> ForgetVm:
    forgotten: ForgetVm = ask(ForgetVm, operation, **{"reason": "host n1 burnt down", "node_lost": True, **more})
    return forgotten


def expire(operation: int) -> ExpireOperation:
    return ExpireOperation(vm=ID, operation=uid(operation), at=at(LATER))


def lose() -> LoseVm:
    return LoseVm(vm=ID, node=NODE, at=at(60))


REQUESTED = [create()]
SCHEDULED = [*REQUESTED, schedule()]
RUNNING = [*SCHEDULED, report(Power.ON, 1, boots=1, addresses=("192.0.2.7",))]
STOPPING = [*RUNNING, ask(StopVm, 11)]
STOPPED = [*STOPPING, report(Power.OFF, 2)]
STARTING = [*STOPPED, ask(StartVm, 12)]
FAILED = [*SCHEDULED, broken(1)]
FAILED_UNPLACED = [*REQUESTED, expire(10)]
PAUSED = [*RUNNING, ask(PauseVm, 16), report(Power.PAUSED, 2)]
SUSPENDED = [*RUNNING, ask(SuspendVm, 16), report(Power.SUSPENDED, 2)]
RESCUED = [*RUNNING, ask(RescueVm, 18, image="rescue"), report(Power.ON, 2, boots=2, seconds=120)]
DELETING = [*RUNNING, ask(DeleteVm, 13)]

LEASED = AddressSource(address="192.0.2.7", source="lease")
SPOKEN = AddressSource(address="192.0.2.9", source="agent")
#: Leased, then told by the agent; restarted, paused and resumed.
ADDRESSED = [
    *SCHEDULED,
    report(Power.ON, 1, boots=1, seconds=3),
    report(Power.ON, 2, boots=1, seconds=40, address_sources=(LEASED,)),
    report(Power.ON, 3, boots=1, seconds=60, address_sources=(SPOKEN,)),
    ask(RestartVm, 12),
    report(Power.ON, 4, boots=2, seconds=110),
    report(Power.ON, 5, boots=2, seconds=140, address_sources=(SPOKEN,)),
    ask(PauseVm, 13),
    report(Power.PAUSED, 6, seconds=160),
    ask(ResumeVm, 14),
    report(Power.ON, 7, boots=2, seconds=170, address_sources=(SPOKEN,)),
]

#: By name: the commands, and the phase they end in.
LIVES: dict[str, tuple[list[Any], Phase]] = {
    "requested": (REQUESTED, Phase.REQUESTED),
    "unschedulable": ([*REQUESTED, DeferVm(vm=ID, at=at(1))], Phase.UNSCHEDULABLE),
    "scheduled": (SCHEDULED, Phase.SCHEDULED),
    "preparing": ([*SCHEDULED, report(Power.ABSENT, 1, step="image")], Phase.SCHEDULED),
    "running": (RUNNING, Phase.RUNNING),
    "stopping": (STOPPING, Phase.RUNNING),
    "restarting": ([*RUNNING, ask(RestartVm, 14)], Phase.RUNNING),
    "stopped": (STOPPED, Phase.STOPPED),
    "pausing": ([*RUNNING, ask(PauseVm, 16)], Phase.RUNNING),
    "paused": (PAUSED, Phase.PAUSED),
    "stalled": ([*RUNNING, stalled(2)], Phase.PAUSED),
    "resuming": ([*PAUSED, ask(ResumeVm, 17)], Phase.PAUSED),
    "suspending": ([*RUNNING, ask(SuspendVm, 16)], Phase.RUNNING),
    "suspending, paused": ([*PAUSED, ask(SuspendVm, 17)], Phase.PAUSED),
    "suspended": (SUSPENDED, Phase.SUSPENDED),
    "restoring": ([*SUSPENDED, ask(ResumeVm, 17)], Phase.SUSPENDED),
    "discarding": ([*SUSPENDED, ask(StopVm, 11, force=True)], Phase.SUSPENDED),
    "going into rescue": ([*RUNNING, ask(RescueVm, 18)], Phase.RUNNING),
    "in rescue": (RESCUED, Phase.RUNNING),
    "stopped in rescue": ([*RESCUED, ask(StopVm, 19), report(Power.OFF, 3, seconds=130)], Phase.STOPPED),
    "leaving rescue": ([*RESCUED, ask(UnrescueVm, 19)], Phase.RUNNING),
    "starting": (STARTING, Phase.STOPPED),
    "failed": (FAILED, Phase.FAILED),
    "failed, no node": (FAILED_UNPLACED, Phase.FAILED),
    "retrying": ([*FAILED, ask(StartVm, 15)], Phase.SCHEDULED),
    "retrying, no node": ([*FAILED_UNPLACED, ask(StartVm, 15)], Phase.REQUESTED),
    "lost": ([*RUNNING, lose()], Phase.LOST),
    "lost while scheduled": ([*SCHEDULED, lose()], Phase.LOST),
    "lost while stopped": ([*STOPPED, lose()], Phase.LOST),
    "lost while paused": ([*PAUSED, lose()], Phase.LOST),
    "lost while suspended": ([*SUSPENDED, lose()], Phase.LOST),
    "lost while starting": ([*STARTING, lose()], Phase.LOST),
    "lost while stopping": ([*STOPPING, lose()], Phase.LOST),
    "deleting": (DELETING, Phase.RUNNING),
    "deleting, late": ([*DELETING, expire(13)], Phase.RUNNING),
    "deleting, failed": ([*DELETING, broken(2)], Phase.FAILED),
    "abandoned": ([*SCHEDULED, ask(AbandonVm, 18)], Phase.FAILED),
    "stop failed": ([*STOPPING, broken(2)], Phase.FAILED),
    "forgotten": ([*RUNNING, lose(), forget(19)], Phase.DELETED),
    "deleted": ([*DELETING, report(Power.ABSENT, 2)], Phase.DELETED),
}

#: The situations of VMs that are not deleted.
ALIVE = [life for life, (_, phase) in LIVES.items() if phase is not Phase.DELETED]
#: Codes of refusals.
BUSY, WRONG, GONE = "operation_pending", "wrong_phase", "vm_deleted"


def lived(commands: list[Any]) -> Vm:
    """The VM after these commands, none of which may be refused or mean nothing."""
    state: Vm | None = None
    for command in commands:
        events = vm.decide(state, command)
        assert events, command
        for event in events:
            state = vm.evolve(state, stored(event))
    assert state is not None
    return state


def living(life: str) -> Vm:
    return lived(LIVES[life][0])


def given(life: str | list[Any] | None) -> Story[Vm]:
    """The story of one of LIVES, or of these commands; None: nothing has happened yet."""
    state = None if life is None else living(life) if isinstance(life, str) else lived(life)
    return Story(vm.decide, vm.evolve, state)
