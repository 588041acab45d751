"""A VM from placement on: start, stop, another size, another disk."""

import pytest

from domain import vm
from domain.base import Category, Sealed
from domain.contract import Desired, Power
from domain.vm import (
    Considered,
    DeferVm,
    DropVm,
    HostKey,
    Phase,
    RebuildVm,
    RecordGuestReady,
    ResizeVm,
    RestartVm,
    RetryVm,
    StartVm,
    StopVm,
    VmDeleted,
    VmFailed,
    VmPreparing,
    VmRebuildRequested,
    VmResized,
    VmRetryRequested,
    VmScheduled,
    VmStarted,
    VmStartRequested,
    VmStopped,
    VmStopRequested,
    VmUnschedulable,
)
from tests.domain.lives import (
    BUSY,
    GONE,
    ID,
    LIVES,
    NODE,
    RUNNING,
    SPEC,
    STOPPED,
    WRONG,
    ask,
    broken,
    create,
    expire,
    given,
    living,
    report,
    schedule,
)
from tests.domain.story import at, uid

ON, OFF, ABSENT, UNKNOWN = Power.ON, Power.OFF, Power.ABSENT, Power.UNKNOWN


# ── placement ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_being_placed_starts_the_clock_of_the_creation() -> None:
    done = (
        given("requested")
        .when(schedule())
        .then(VmScheduled, node=NODE, epoch=1, operation=uid(10), deadline=at(1) + vm.CREATE_DEADLINE)
    )
    assert done.after.pending is not None
    assert done.after.pending.deadline == at(1) + vm.CREATE_DEADLINE


@pytest.mark.parametrize("life", [life for life, (_, p) in LIVES.items() if p not in ("requested", "unschedulable")])
def test_only_a_vm_that_waits_is_placed(life: str) -> None:
    story = given(life)
    story.when(schedule("n2")).then_nothing()
    story.when(DeferVm(vm=ID, at=at(1), considered=(Considered(node="n1", reason="is cordoned"),))).then_nothing()
    story.when(DropVm(vm=ID, at=at(1), code="image_not_found", detail="gone")).then_nothing()


def test_no_room_is_said_once_for_each_set_of_reasons() -> None:
    full = DeferVm(vm=ID, at=at(1), considered=(Considered(node="n1", reason="is full"),))
    done = given("requested").when(full).then(VmUnschedulable, operation=uid(10))
    done.and_when(full).then_nothing()
    done.and_when(DeferVm(vm=ID, at=at(2))).then(VmUnschedulable, considered=())
    assert done.and_when(schedule()).after.phase is Phase.SCHEDULED


def test_a_cloud_without_nodes_has_no_room_either() -> None:
    given("requested").when(DeferVm(vm=ID, at=at(1))).then(VmUnschedulable, considered=())


@pytest.mark.parametrize("life", ["requested", "unschedulable", "retrying, no node"])
def test_what_lost_its_ground_before_it_was_placed_fails_and_is_gone(life: str) -> None:
    operation = living(life).pending.operation  # type: ignore[union-attr]
    done = given(life).when(DropVm(vm=ID, at=at(1), code="image_not_found", detail="image base was deleted"))
    done.then(VmFailed, VmDeleted, code="image_not_found", operation=operation)
    assert (done.after.phase, done.after.pending) == (Phase.DELETED, None)


# ── start, stop, restart ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_is_graceful_until_its_moment() -> None:
    stop = given("running").when(ask(StopVm, grace_seconds=30))
    stop.then(VmStopRequested, force_after=at(130), deadline=at(130) + vm.POWER_DEADLINE)
    assert (stop.after.desired, stop.after.force_after) == (Desired.OFF, at(130))
    given("running").when(ask(StopVm, force=True)).then(VmStopRequested, force_after=at(100), cancels=None)


@pytest.mark.parametrize(("life", "overtaken"), [("stopping", 11), ("restarting", 14), ("starting", 12)])
def test_a_forced_stop_overtakes_what_is_under_way(life: str, overtaken: int) -> None:
    done = given(life).when(ask(StopVm, force=True)).then(VmStopRequested, cancels=uid(overtaken))
    assert done.after.desired is Desired.OFF


@pytest.mark.parametrize("life", ["stopping", "restarting", "starting", "retrying", "lost while starting"])
def test_a_forced_stop_ends_when_the_vm_is_off(life: str) -> None:
    done = given(life).when(ask(StopVm, force=True))
    off = done.and_when(report(OFF)).then(VmStopped, operation=uid(20), cause="requested").after
    assert (off.phase, off.pending, off.desired) == (Phase.STOPPED, None, Desired.OFF)


def test_a_forced_stop_of_what_never_came_up_ends_when_there_is_nothing() -> None:
    done = given("retrying").when(ask(StopVm, force=True))
    done.and_when(report(ABSENT)).then(VmStopped, operation=uid(20), cause="requested")


def test_each_boot_counts() -> None:
    started = given("stopped").when(ask(StartVm)).after
    assert (started.boots, started.desired, started.phase) == (2, Desired.ON, Phase.STOPPED)
    again = given("running").when(ask(RestartVm, grace_seconds=5)).after
    assert (again.boots, again.desired, again.force_after) == (2, Desired.ON, at(105))


def test_a_failed_vm_starts_on_its_node() -> None:
    done = given("failed").when(ask(StartVm)).then(VmStartRequested, deadline=at(100) + vm.CREATE_DEADLINE)
    assert (done.after.phase, done.after.node, done.after.failure) == (Phase.SCHEDULED, NODE, None)
    done.and_when(schedule("n2")).then_nothing()
    done.and_when(report(ABSENT, step="disk")).then(VmPreparing, operation=uid(20))
    assert done.and_when(report(ON, boots=2)).then(VmStarted, operation=uid(20)).after.phase is Phase.RUNNING


def test_a_failed_vm_that_never_had_a_node_is_placed_anew() -> None:
    done = given("failed, no node").when(ask(StartVm)).then(VmStartRequested, deadline=at(100) + vm.PLACEMENT_DEADLINE)
    assert done.after.phase is Phase.REQUESTED
    placed = done.and_when(schedule()).then(VmScheduled, operation=uid(20), epoch=1).after
    assert (placed.phase, placed.desired) == (Phase.SCHEDULED, Desired.ON)


# ── resize ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("life", LIVES)
def test_a_vm_that_was_created_is_resized_unless_something_is_under_way(life: str) -> None:
    before = living(life)
    done = given(life).when(ask(ResizeVm, memory_mib=1024))
    if before.phase is Phase.DELETED:
        done.then_rejected(GONE, Category.GONE)
    elif before.pending is not None:
        done.then_rejected(BUSY)
    elif before.phase is Phase.LOST or before.desired is Desired.ABSENT:
        done.then_rejected(WRONG)
    else:
        done.then(VmResized, spec=SPEC.model_copy(update={"memory_mib": 1024}), operation=uid(20))
        assert (done.after.phase, done.after.desired, done.after.pending) == (before.phase, before.desired, None)
        there = before.phase in (Phase.RUNNING, Phase.PAUSED, Phase.SUSPENDED)
        assert done.after.running_size == (SPEC.resources() if there else None)
        done.and_when(ask(ResizeVm, memory_mib=1024)).then_nothing()


def test_a_size_counts_from_the_next_start_on() -> None:
    larger = SPEC.model_copy(update={"vcpus": 4}).resources()
    resized = given([*RUNNING, ask(ResizeVm, 11, vcpus=4)])
    resized.when(report(ON, boots=1, size=SPEC.resources())).then_nothing()
    again = given([*RUNNING, ask(ResizeVm, 11, vcpus=4), ask(RestartVm, 12)])
    started = again.when(report(ON, boots=2, size=larger)).then(VmStarted, size=larger, operation=uid(12)).after
    assert (started.running_size, started.spec.vcpus) == (larger, 4)
    by_the_node = resized.when(report(ON, boots=1, size=larger)).then(VmStarted, size=larger, operation=None)
    by_the_node.and_when(report(ON, 2000, boots=1, size=larger)).then_nothing()
    assert given([*RUNNING, ask(ResizeVm, 11, vcpus=4), ask(StopVm, 12), report(OFF, 2)]).state.running_size is None  # type: ignore[union-attr]


def test_a_disk_never_shrinks() -> None:
    refusal = given("stopped").when(ask(ResizeVm, disk_gib=3)).then_rejected("disk_cannot_shrink", Category.INVALID)
    assert refusal.field == "disk_gib"
    assert "4 GiB" in refusal.detail
    given("stopped").when(ask(ResizeVm, disk_gib=4)).then(VmResized)
    given("stopped").when(ask(ResizeVm, vcpus=1, memory_mib=64)).then(VmResized)
    given("stopped").when(ask(ResizeVm)).then_rejected("invalid_request", Category.INVALID)


# ── rebuild ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("life", LIVES)
def test_a_vm_that_was_created_is_rebuilt_unless_something_is_under_way(life: str) -> None:
    before = living(life)
    done = given(life).when(ask(RebuildVm, image="other"))
    if before.phase is Phase.DELETED:
        done.then_rejected(GONE, Category.GONE)
    elif before.pending is not None:
        done.then_rejected(BUSY)
    elif before.phase is Phase.LOST or before.desired is Desired.ABSENT:
        done.then_rejected(WRONG)
    else:
        done.then(VmRebuildRequested, image="other", disk=2, operation=uid(20))
        after = done.after
        assert (after.desired, after.boots, after.disk, after.image) == (Desired.ON, before.boots + 1, 2, "other")
        assert (after.id, after.name, after.force_after) == (before.id, before.name, None)
        if before.node is None:
            assert after.phase is Phase.REQUESTED
        else:
            done.and_when(report(ON, boots=before.boots)).then_nothing()
            done.and_when(report(OFF)).then_nothing()
            up = done.and_when(report(ON, boots=before.boots + 1)).then(VmStarted, operation=uid(20)).after
            assert (up.phase, up.pending, up.disk_made) == (Phase.RUNNING, None, 2)


def test_a_rebuilt_vm_is_a_new_machine() -> None:
    key = HostKey(type="ssh-ed25519", key="AAAA", fingerprint="SHA256:x")
    secret = Sealed(key=ID, nonce="n", ciphertext="c", size=1)
    ready = RecordGuestReady(vm=ID, at=at(70), host_keys=(key,))
    old = [create(ssh_keys=("a",), user_data=secret), schedule(), report(ON, 1, boots=1), ready]
    same = given(old).when(ask(RebuildVm, image="base")).after
    assert (same.ready_at, same.host_keys, same.ssh_keys, same.user_data) == (None, (), ("a",), secret)
    fresh = secret.model_copy(update={"nonce": "m"})
    other = given(old).when(ask(RebuildVm, image="base", ssh_keys=(), user_data=fresh)).after
    assert (other.ssh_keys, other.user_data) == ((), fresh)


def test_a_rebuild_that_failed_is_retried_by_starting() -> None:
    failed = given([*RUNNING, ask(RebuildVm, 11, image="other"), broken(2)])
    again = failed.when(ask(RetryVm)).then(VmRetryRequested, again="start").after
    assert (again.disk, again.boots, again.image, again.phase) == (2, 3, "other", Phase.SCHEDULED)
    assert again.disk_made == 1
    late = given([*STOPPED, ask(RebuildVm, 12, image="other"), expire(12)])
    assert late.state is not None
    assert (late.state.phase, late.state.disk) == (Phase.FAILED, 2)
