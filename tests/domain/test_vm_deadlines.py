"""What nobody says of a VM: a silent node, and what times out."""

from datetime import timedelta

import pytest

from domain import vm
from domain.contract import Desired, Power
from domain.vm import (
    DeleteVm,
    Phase,
    RestartVm,
    StartVm,
    StopVm,
    VmDeleted,
    VmDeletionRequested,
    VmLost,
    VmOperationTimedOut,
    VmPreparing,
    VmStarted,
    VmStopped,
)
from tests.domain.lives import (
    LIVES,
    NODE,
    RUNNING,
    SCHEDULED,
    STARTING,
    STOPPED,
    ask,
    expire,
    given,
    lived,
    living,
    lose,
    report,
)
from tests.domain.story import at, uid

ON, OFF, ABSENT, UNKNOWN = Power.ON, Power.OFF, Power.ABSENT, Power.UNKNOWN


# ── a silent node ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("life", LIVES)
def test_a_silent_node_loses_what_it_could_be_seen_to_run(life: str) -> None:
    before = living(life)
    done = given(life).when(lose())
    if before.phase in vm.VISIBLE:
        after = done.then(VmLost, node=NODE).after
        assert (after.phase, after.pending, after.desired) == (Phase.LOST, before.pending, before.desired)
        given(life).when(lose().model_copy(update={"node": "n2"})).then_nothing()
    else:
        done.then_nothing()


def test_found_again_it_is_what_it_is() -> None:
    lost = given("lost")
    assert lost.when(report(ON, boots=1)).then(VmStarted, operation=None).after.phase is Phase.RUNNING
    assert lost.when(report(OFF, cause="crashed")).then(VmStopped, cause="crashed").after.phase is Phase.STOPPED
    busy = given("lost while scheduled").when(report(ABSENT, step="disk"))
    assert busy.then(VmPreparing, operation=uid(10)).after.phase is Phase.SCHEDULED


def test_found_again_after_a_restart_that_timed_out_it_runs() -> None:
    late = given([*RUNNING, ask(RestartVm, 14), lose(), expire(14)]).when(report(ON, boots=1))
    assert late.then(VmStarted, operation=None).after.phase is Phase.RUNNING


# ── deadlines ───────────────────────────────────────────────────────────────────────────────────────────────────────

#: The pending operation, its verb, and what is true and wanted once its time is up.
DEADLINES: list[tuple[str, int, str, Phase, Desired]] = [
    ("requested", 10, "create", Phase.FAILED, Desired.OFF),
    ("unschedulable", 10, "create", Phase.FAILED, Desired.OFF),
    ("scheduled", 10, "create", Phase.FAILED, Desired.OFF),
    ("lost while scheduled", 10, "create", Phase.FAILED, Desired.OFF),
    ("stopping", 11, "stop", Phase.RUNNING, Desired.OFF),
    ("lost while stopping", 11, "stop", Phase.LOST, Desired.OFF),
    ("restarting", 14, "restart", Phase.RUNNING, Desired.ON),
    ("starting", 12, "start", Phase.FAILED, Desired.OFF),
    ("retrying", 15, "start", Phase.FAILED, Desired.OFF),
    ("pausing", 16, "pause", Phase.RUNNING, Desired.ON),
    ("suspending", 16, "suspend", Phase.RUNNING, Desired.ON),
    ("suspending, paused", 17, "suspend", Phase.PAUSED, Desired.PAUSED),
    ("resuming", 17, "resume", Phase.PAUSED, Desired.PAUSED),
    ("restoring", 17, "resume", Phase.SUSPENDED, Desired.SUSPENDED),
    ("discarding", 11, "stop", Phase.SUSPENDED, Desired.OFF),
    ("deleting", 13, "delete", Phase.RUNNING, Desired.ABSENT),
]


@pytest.mark.parametrize(("life", "operation", "verb", "phase", "desired"), DEADLINES)
def test_every_operation_times_out(life: str, operation: int, verb: str, phase: Phase, desired: Desired) -> None:
    done = given(life).when(expire(operation)).then(VmOperationTimedOut, operation=uid(operation), verb=verb)
    assert (done.after.pending, done.after.phase, done.after.desired) == (None, phase, desired)
    assert (done.after.failure is not None) == (phase is Phase.FAILED)
    done.and_when(expire(operation)).then_nothing()
    done.and_when(ask(DeleteVm)).then(
        *([VmDeletionRequested] if living(life).node else [VmDeletionRequested, VmDeleted])
    )


@pytest.mark.parametrize("life", LIVES)
def test_only_the_pending_operation_times_out_and_not_before_its_time(life: str) -> None:
    story = given(life)
    story.when(expire(77)).then_nothing()
    pending = living(life).pending
    if pending is None:
        return
    early = expire(0).model_copy(update={"operation": pending.operation, "at": pending.deadline - timedelta(seconds=1)})
    story.when(early).then_nothing()
    story.when(early.model_copy(update={"at": pending.deadline})).then(VmOperationTimedOut)


def test_a_creation_that_comes_up_too_late_is_not_wanted_any_more() -> None:
    late = given([*SCHEDULED, expire(10)])
    late.when(report(ON, boots=1)).then_nothing()
    assert late.when(ask(StartVm)).after.boots == 2


def test_a_stop_that_comes_true_too_late_is_still_seen() -> None:
    late = given([*RUNNING, ask(StopVm, 11), expire(11)])
    late.when(report(OFF)).then(VmStopped, cause="requested", operation=None)


def test_the_whole_story() -> None:
    done = lived([*STARTING, report(ON, 3, boots=2), ask(DeleteVm, 16), report(ABSENT, 4)])
    assert (done.phase, done.boots, done.epoch, done.sequence) == (Phase.DELETED, 2, 1, 3)
    assert set(done.operations) == {uid(n) for n in (10, 11, 12, 16)}
    assert lived(STOPPED).started_at == at(50)
