"""A VM's ways out of a failure: retry, abandon, forget, and its restart policy."""

from typing import Any

import pytest

from domain import vm
from domain.base import Category
from domain.contract import Desired, Power
from domain.vm import (
    AbandonVm,
    ChangeVm,
    DeleteVm,
    Phase,
    RestartByPolicy,
    RetryVm,
    StartVm,
    StopVm,
    Vm,
    VmAbandoned,
    VmCleared,
    VmDeleted,
    VmForgotten,
    VmRestartedByPolicy,
    VmRestartScheduled,
    VmRetryRequested,
    VmScheduled,
    VmStarted,
    VmStopped,
    VmStopRequested,
)
from tests.domain.lives import (
    BUSY,
    FAILED,
    GONE,
    ID,
    LIVES,
    NODE,
    RUNNING,
    WRONG,
    ask,
    broken,
    create,
    expire,
    forget,
    given,
    living,
    lose,
    report,
    schedule,
)
from tests.domain.story import Story, at, uid

ON, OFF, ABSENT, UNKNOWN = Power.ON, Power.OFF, Power.ABSENT, Power.UNKNOWN


# ── retry, abandon, forget ──────────────────────────────────────────────────────────────────────────────────────────

#: What a retry asks for again, by situation; in any other it is refused.
RETRIES = {
    "failed": "start",
    "failed, no node": "start",
    "abandoned": "start",
    "stop failed": "stop",
    "deleting, failed": "delete",
}


@pytest.mark.parametrize("life", LIVES)
def test_what_failed_can_be_retried(life: str) -> None:
    before = living(life)
    done = given(life).when(ask(RetryVm))
    if before.phase is Phase.DELETED:
        done.then_rejected(GONE, Category.GONE)
    elif life not in RETRIES:
        done.then_rejected(BUSY if before.pending else WRONG)
    else:
        done.then(VmRetryRequested, again=RETRIES[life], operation=uid(20))
        assert done.after.pending is not None
        assert (done.after.pending.operation, done.after.pending.verb) == (uid(20), RETRIES[life])
        done.and_when(ask(RetryVm)).then_nothing()


def test_a_retry_ends_as_what_it_repeats() -> None:
    started = given("failed").when(ask(RetryVm))
    assert (started.after.boots, started.after.phase, started.after.failure) == (2, Phase.SCHEDULED, None)
    started.and_when(report(ON, boots=2)).then(VmStarted, operation=uid(20))
    given("failed, no node").when(ask(RetryVm)).and_when(schedule()).then(VmScheduled, operation=uid(20))
    stopped = given("stop failed").when(ask(RetryVm)).then(VmRetryRequested, force_after=at(100) + vm.GRACE)
    assert stopped.and_when(report(OFF)).then(VmStopped, operation=uid(20), cause="requested").after.pending is None
    given("deleting, failed").when(ask(RetryVm)).and_when(report(ABSENT)).then(VmDeleted, operation=uid(20))


def test_a_deletion_is_all_that_is_retried_of_what_is_to_be_deleted() -> None:
    late = given([*FAILED, ask(DeleteVm, 13), expire(13)])
    late.when(ask(RetryVm)).then(VmRetryRequested, again="delete")
    late.when(ask(ChangeVm, 14, protected=True)).then_rejected("wrong_phase")


@pytest.mark.parametrize("life", LIVES)
def test_what_is_pending_can_be_abandoned(life: str) -> None:
    before = living(life)
    done = given(life).when(ask(AbandonVm))
    if before.phase is Phase.DELETED:
        done.then_rejected(GONE, Category.GONE)
    elif before.pending is None:
        done.then_rejected(WRONG)
    elif before.pending.verb == "delete":
        done.then_rejected(BUSY)
    else:
        done.then(VmAbandoned, cancels=before.pending.operation, verb=before.pending.verb)
        assert done.after.pending is None
        done.and_when(ask(AbandonVm)).then_nothing()
        done.and_when(ask(AbandonVm, 21)).then_rejected(WRONG)


@pytest.mark.parametrize(
    ("life", "phase", "desired"),
    [
        ("requested", Phase.FAILED, Desired.OFF),
        ("unschedulable", Phase.FAILED, Desired.OFF),
        ("preparing", Phase.FAILED, Desired.OFF),
        ("retrying", Phase.FAILED, Desired.OFF),
        ("starting", Phase.STOPPED, Desired.OFF),
        ("stopping", Phase.RUNNING, Desired.ON),
        ("restarting", Phase.RUNNING, Desired.ON),
        ("pausing", Phase.RUNNING, Desired.ON),
        ("resuming", Phase.PAUSED, Desired.PAUSED),
        ("restoring", Phase.SUSPENDED, Desired.SUSPENDED),
        ("lost while starting", Phase.LOST, Desired.OFF),
        ("lost while stopping", Phase.LOST, Desired.OFF),
    ],
)
def test_what_was_abandoned_is_what_it_truly_is(life: str, phase: Phase, desired: Desired) -> None:
    after = given(life).when(ask(AbandonVm)).after
    assert (after.phase, after.desired) == (phase, desired)
    assert (after.failure is not None) is (phase is Phase.FAILED)
    assert (after.force_after is not None) is (phase in (Phase.STOPPED, Phase.LOST))


@pytest.mark.parametrize("life", LIVES)
def test_a_vm_on_a_lost_node_can_be_forgotten(life: str) -> None:
    before = living(life)
    done = given(life).when(forget())
    if before.phase is Phase.DELETED:
        done.then_rejected(GONE, Category.GONE)
    elif before.node is None:
        done.then_rejected(WRONG)
    else:
        cancelled = before.pending.operation if before.pending else None
        done.then(VmForgotten, VmDeleted, reason="host n1 burnt down", node=NODE, epoch=2, cancels=cancelled)
        assert (done.after.phase, done.after.pending, done.after.epoch) == (Phase.DELETED, None, 2)
        done.and_when(forget()).then_nothing()
        given(life).when(forget(node_lost=False)).then_rejected("node_not_lost")


def test_a_protected_vm_is_not_forgotten() -> None:
    given([*RUNNING, ask(ChangeVm, 11, protected=True), lose()]).when(forget()).then_rejected("delete_protected")


def test_the_node_of_a_forgotten_vm_says_once_that_nothing_is_left() -> None:
    story = given("forgotten")
    for early in (report(ON, epoch=2), report(ABSENT, epoch=1), report(ABSENT, epoch=2, step="remove")):
        story.when(early).then_nothing()
    story.when(report(ABSENT, epoch=2, node="n2")).then_nothing()
    story.when(broken(epoch=2)).then_nothing()
    cleared = story.when(report(ABSENT, epoch=2)).then(VmCleared, node=NODE)
    cleared.and_when(report(ABSENT, 2000, epoch=2)).then_nothing()
    given("deleted").when(report(ABSENT, epoch=1)).then_nothing()


def test_a_daemon_on_another_folder_says_nothing_of_a_forgotten_vm() -> None:
    story = given([*RUNNING, lose(), forget(folder="old")])
    for other in ("new", None):
        story.when(report(ABSENT, epoch=2, lease=2, folder=other)).then_nothing()
    story.when(report(ABSENT, epoch=2, lease=3, folder="old")).then(VmCleared, lease=3)
    given([*RUNNING, lose(), forget()]).when(report(ABSENT, epoch=2, folder="new")).then(VmCleared)  # of before


# ── restart policy ──────────────────────────────────────────────────────────────────────────────────────────────────


def policed(policy: str, *more: Any) -> Story[Vm]:
    return given([create(restart_policy=policy), schedule(), report(ON, 1, boots=1), *more])


@pytest.mark.parametrize(
    ("policy", "cause", "again"),
    [
        ("no", "guest", False),
        ("no", "crashed", False),
        ("on-failure", "guest", False),
        ("no", "watchdog", False),
        ("on-failure", "crashed", True),
        ("on-failure", "watchdog", True),
        ("always", "guest", True),
        ("always", "crashed", True),
        ("always", "watchdog", True),
        ("always", None, False),
    ],
)
def test_what_a_policy_covers(policy: str, cause: str | None, again: bool) -> None:
    done = policed(policy).when(report(OFF, cause=cause, seconds=60))
    if not again:
        done.then(VmStopped)
        return
    done.then(VmStopped, VmRestartScheduled)
    assert (done.after.phase, done.after.desired, done.after.restart_at) == (Phase.STOPPED, Desired.OFF, at(61))
    done.and_when(RestartByPolicy(vm=ID, operation=uid(30), at=at(60.5))).then_nothing()
    due = RestartByPolicy(vm=ID, operation=uid(30), at=at(61))
    started = done.and_when(due).then(VmRestartedByPolicy, operation=uid(30), attempt=1)
    assert (started.after.boots, started.after.desired, started.after.restart_at) == (2, Desired.ON, None)
    started.and_when(due).then_nothing()
    started.and_when(report(ON, 2000, boots=2)).then(VmStarted, operation=uid(30))


def test_a_policy_waits_longer_each_time_until_the_guest_ran_well() -> None:
    life: list[Any] = []
    clock, waits = 100, []
    for round_ in range(12):
        runs = 700 if round_ == 10 else 5
        clock += runs
        life.append(report(OFF, len(life) + 2, cause="guest", seconds=clock))
        state = policed("always", *life).state
        assert state is not None
        assert state.restart_at is not None
        waits.append((state.restart_at - at(clock)).total_seconds())
        clock += 400
        life.append(RestartByPolicy(vm=ID, operation=uid(100 + round_), at=at(clock)))
        life.append(report(ON, len(life) + 2, boots=state.boots + 1, seconds=clock))
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 1, 2]


def test_a_stop_that_somebody_asks_for_wins_over_the_policy() -> None:
    off = [report(OFF, 2, cause="guest", seconds=60)]
    due = RestartByPolicy(vm=ID, operation=uid(30), at=at(500))
    waiting = policed("always", *off)
    stopped = waiting.when(ask(StopVm)).then(VmStopRequested, VmStopped, operation=uid(20))
    assert (stopped.after.phase, stopped.after.pending, stopped.after.restart_at) == (Phase.STOPPED, None, None)
    stopped.and_when(due).then_nothing()
    coming = waiting.when(due).and_when(ask(StopVm, grace_seconds=5))
    coming.then(VmStopRequested, cancels=uid(30), force_after=at(105))
    coming.and_when(report(OFF, 2000)).then(VmStopped, cause="requested", operation=uid(20))
    waiting.when(ask(ChangeVm, restart_policy="no")).and_when(due).then_nothing()
    waiting.when(ask(ChangeVm, restart_policy="on-failure")).and_when(due).then(VmRestartedByPolicy)
    waiting.when(ask(StartVm)).and_when(due).then_nothing()
    waiting.when(ask(DeleteVm)).and_when(due).then_nothing()
    waiting.when(lose()).and_when(due).then_nothing()
    policed("always", ask(StopVm, 11)).when(report(OFF, 2, cause="guest")).then(VmStopped, cause="requested")
    policed("always", ask(StopVm, 11), expire(11)).when(report(OFF, 2)).then(VmStopped, cause="requested")
