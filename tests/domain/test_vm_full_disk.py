"""A VM that finds its node's disk full fails in words, and is started again by itself."""

from datetime import datetime

import pytest

from domain.contract import Desired, ImageCache, Power
from domain.vm import (
    DeleteVm,
    Phase,
    RebuildVm,
    RestartByPolicy,
    RestartVm,
    RetryVm,
    StartVm,
    StopVm,
    VmDeletionRequested,
    VmFailed,
    VmRestartedByPolicy,
    VmRestartScheduled,
    VmRetryRequested,
    VmStarted,
    VmStartRequested,
    VmStopped,
    VmStopRequested,
)
from tests.domain.lives import DELETING, ID, RUNNING, SCHEDULED, STOPPED, STOPPING, ask, broken, given, report
from tests.domain.story import at, uid


def due(seconds: float, operation: int = 30) -> RestartByPolicy:
    return RestartByPolicy(vm=ID, operation=uid(operation), at=at(seconds))


LIVES = {
    "create": SCHEDULED,
    "start": [*STOPPED, ask(StartVm, 15)],
    "restart": [*RUNNING, ask(RestartVm, 15)],
    "rebuild": [*RUNNING, ask(RebuildVm, 15, image="other")],
}


@pytest.mark.parametrize("life", LIVES)
def test_it_is_started_again(life: str) -> None:
    failed = given(LIVES[life]).when(broken(code="disk_full", seconds=100))
    failed.then(VmFailed, VmRestartScheduled, code="disk_full")
    assert "started again automatically" in (failed.after.failure.detail if failed.after.failure else "")
    assert (failed.after.phase, failed.after.desired, failed.after.restart_at) == (Phase.FAILED, Desired.OFF, at(105))
    failed.and_when(broken(2000, code="disk_full")).then_nothing()
    failed.and_when(due(104)).then_nothing()
    again = failed.and_when(due(105)).then(VmRestartedByPolicy, operation=uid(30))
    assert (again.after.desired, again.after.failure, again.after.restart_at) == (Desired.ON, None, None)
    up = again.and_when(report(Power.ON, 3000, boots=again.after.boots)).then(VmStarted, operation=uid(30))
    assert up.after.phase is Phase.RUNNING


def test_later_each_time() -> None:
    life, waits, clock = list(SCHEDULED), [], 100.0
    for number in range(1, 10):
        life.append(broken(number, code="disk_full", seconds=clock))
        state = given(life).state
        assert state is not None
        assert isinstance(state.restart_at, datetime)
        waits.append((state.restart_at - at(clock)).total_seconds())
        clock += 1000
        life.append(due(clock, 100 + number))
    assert waits == [5, 10, 20, 40, 80, 160, 320, 600, 600]


def test_what_people_ask_wins() -> None:
    failed = given([*SCHEDULED, broken(1, code="disk_full")])
    stopped = failed.when(ask(StopVm)).then(VmStopRequested, VmStopped)
    assert (stopped.after.phase, stopped.after.restart_at) == (Phase.STOPPED, None)
    stopped.and_when(due(10_000)).then_nothing()
    stopped.and_when(ask(StartVm, 21)).then(VmStartRequested)
    failed.when(ask(RetryVm)).then(VmRetryRequested).and_when(due(10_000)).then_nothing()
    failed.when(ask(StartVm)).then(VmStartRequested).and_when(due(10_000)).then_nothing()
    failed.when(ask(DeleteVm)).then(VmDeletionRequested).and_when(due(10_000)).then_nothing()


def test_only_what_was_to_be_on() -> None:
    for life in (STOPPING, DELETING):
        given(life).when(broken(code="disk_full")).then(VmFailed)
    given(SCHEDULED).when(broken(code="image_missing")).then(VmFailed).and_when(due(10_000)).then_nothing()
    given([*SCHEDULED, broken(1)]).when(ask(StopVm)).then_rejected("wrong_phase")


def test_what_a_daemon_of_before_says_of_its_images_is_read() -> None:
    assert ImageCache.model_validate_json('{"images": 1, "bytes": 2}').free_bytes is None
