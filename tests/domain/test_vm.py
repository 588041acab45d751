"""The life of a VM: every verb in every situation, every report, every deadline."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from domain import vm
from domain.base import Sealed
from domain.contract import Desired, Power, ReportError
from domain.known import Known
from domain.vm import (
    AbandonVm,
    ChangeVm,
    Considered,
    DeferVm,
    DeleteVm,
    DropVm,
    HostKey,
    PauseVm,
    Phase,
    RebuildVm,
    RecordGuestReady,
    ResizeVm,
    RestartByPolicy,
    RestartVm,
    ResumeVm,
    RetryVm,
    StartVm,
    StopVm,
    SuspendVm,
    TagVm,
    Verb,
    Vm,
    VmAbandoned,
    VmAddressesChanged,
    VmChanged,
    VmCleared,
    VmDeleted,
    VmDeletionRequested,
    VmFailed,
    VmForgotten,
    VmGuestReady,
    VmLost,
    VmOperationTimedOut,
    VmPaused,
    VmPauseRequested,
    VmPreparing,
    VmRebuildRequested,
    VmRequested,
    VmResized,
    VmRestartedByPolicy,
    VmRestartRequested,
    VmRestartScheduled,
    VmResumed,
    VmResumeRequested,
    VmRetryRequested,
    VmScheduled,
    VmStarted,
    VmStartRequested,
    VmStopped,
    VmStopRequested,
    VmSuspended,
    VmSuspendRequested,
    VmTagged,
    VmUnschedulable,
)
from domain.vm.table import ALLOWED
from tests.domain.lives import (
    FAILED,
    ID,
    LIVES,
    NODE,
    RUNNING,
    SCHEDULED,
    SPEC,
    STARTING,
    STOPPED,
    ask,
    broken,
    create,
    expire,
    forget,
    given,
    lived,
    living,
    lose,
    report,
    schedule,
    stalled,
)
from tests.domain.story import Story, at, uid

#: The situations of VMs that are not deleted.
ALIVE = [life for life, (_, phase) in LIVES.items() if phase is not Phase.DELETED]
ON, OFF, ABSENT, UNKNOWN = Power.ON, Power.OFF, Power.ABSENT, Power.UNKNOWN
HALT, SAVED = Power.PAUSED, Power.SUSPENDED


@pytest.mark.parametrize(("life", "phase"), [(life, phase) for life, (_, phase) in LIVES.items()])
def test_each_life_leads_where_its_name_says(life: str, phase: Phase) -> None:
    assert living(life).phase is phase


# ── verbs ───────────────────────────────────────────────────────────────────────────────────────────────────────────

BUSY = "operation_pending"
WRONG = "wrong_phase"
GONE = "vm_deleted"

#: What start, stop, stop by force, restart, pause, resume and suspend lead to. True: accepted.
VERBS: dict[str, tuple[bool | str, ...]] = {
    "requested": (BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY),
    "unschedulable": (BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY),
    "scheduled": (BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY),
    "preparing": (BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY),
    "running": (WRONG, True, True, True, True, WRONG, True),
    "stopping": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "restarting": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "stopped": (True, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "pausing": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "paused": (WRONG, WRONG, True, WRONG, WRONG, True, True),
    "stalled": (WRONG, WRONG, True, WRONG, WRONG, True, True),
    "resuming": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "suspending": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "suspending, paused": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "suspended": (WRONG, WRONG, True, WRONG, WRONG, True, WRONG),
    "restoring": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "discarding": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "starting": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "failed": (True, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "failed, no node": (True, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "retrying": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "retrying, no node": (BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY),
    "lost": (WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "lost while scheduled": (BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY),
    "lost while stopped": (WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "lost while paused": (WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "lost while suspended": (WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "lost while starting": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "lost while stopping": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "deleting": (BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY),
    "deleting, late": (WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "deleting, failed": (WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "abandoned": (True, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "stop failed": (True, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "forgotten": (GONE, GONE, GONE, GONE, GONE, GONE, GONE),
    "deleted": (GONE, GONE, GONE, GONE, GONE, GONE, GONE),
}
ASKED: dict[str, tuple[Any, Any]] = {
    "start": (ask(StartVm), VmStartRequested),
    "stop": (ask(StopVm), VmStopRequested),
    "force": (ask(StopVm, force=True), VmStopRequested),
    "restart": (ask(RestartVm), VmRestartRequested),
    "pause": (ask(PauseVm), VmPauseRequested),
    "resume": (ask(ResumeVm), VmResumeRequested),
    "suspend": (ask(SuspendVm), VmSuspendRequested),
}
ROWS = [
    pytest.param(life, command, event, outcome, id=f"{name} when {life}")
    for life, row in VERBS.items()
    for (name, (command, event)), outcome in zip(ASKED.items(), row, strict=True)
]


@pytest.mark.parametrize(("life", "command", "event", "outcome"), ROWS)
def test_every_verb_in_every_situation(life: str, command: Any, event: Any, outcome: bool | str) -> None:
    done = given(life).when(command)
    if outcome is True:
        done.then(event, operation=uid(20), at=at(100))
        assert done.after.pending is not None
        assert done.after.pending.operation == uid(20)
    else:
        done.then_rejected(str(outcome), 410 if outcome == GONE else 409)


def test_the_table_of_verbs_is_complete() -> None:
    assert set(VERBS) == set(LIVES)


def test_every_verb_has_a_word_for_every_phase() -> None:
    assert {verb: set(row) for verb, row in ALLOWED.items()} == {verb: set(Phase) for verb in Verb}
    assert all(help_ is None or len(help_) > 10 for row in ALLOWED.values() for help_ in row.values())


def test_a_refusal_names_what_is_and_what_would_help() -> None:
    detail = given("running").when(ask(StartVm)).then_rejected("wrong_phase").detail
    assert detail == "cannot start a VM that is running: it runs already; use restart to boot it anew"
    busy = given("stopping").when(ask(StartVm)).then_rejected("operation_pending").detail
    assert busy.startswith(f"stop (operation {uid(11)}) is under way; ")
    assert busy.endswith("; wait for it, overtake it with a forced stop or a delete, or abandon it")
    gone = given("deleting").when(ask(StartVm)).then_rejected("operation_pending").detail
    assert gone.endswith("; wait for it; where its node is lost for good, forget the VM")


@pytest.mark.parametrize("life", ALIVE)
def test_every_vm_can_be_tagged_and_stays_what_it_is(life: str) -> None:
    before = living(life)
    after = given(life).when(ask(TagVm, tags=("web", "web", "db"))).then(VmTagged, tags=("web", "db")).after
    assert (after.phase, after.pending, after.desired) == (before.phase, before.pending, before.desired)
    assert after.tags == ("web", "db")


@pytest.mark.parametrize("life", ALIVE)
def test_what_is_said_of_a_vm_can_be_changed_at_any_moment(life: str) -> None:
    before = living(life)
    changed = (
        given(life).when(ask(ChangeVm, name="db", labels={"team": "é", "a": ""})).then(VmChanged, name="db", tags=None)
    )
    after = changed.after
    assert (after.phase, after.pending, after.desired) == (before.phase, before.pending, before.desired)
    assert (after.name, after.labels, after.tags) == ("db", {"a": "", "team": "é"}, before.tags)
    again = changed.and_when(ask(ChangeVm, 21, labels={}, tags=("x",))).then(VmChanged, labels={}).after
    assert (again.name, again.labels, again.tags, again.protected) == ("db", {}, ("x",), False)


def test_a_protected_vm_is_not_deleted() -> None:
    protected = given("running").when(ask(ChangeVm, protected=True)).then(VmChanged, protected=True)
    refusal = protected.and_when(ask(DeleteVm, 21)).then_rejected("delete_protected")
    assert refusal.field == "protected"
    assert "protected: false" in refusal.detail
    lifted = given([*RUNNING, ask(ChangeVm, 21, protected=True), ask(ChangeVm, 22, protected=False)])
    lifted.when(ask(DeleteVm)).then(VmDeletionRequested)
    given([create(protected=True)]).when(ask(DeleteVm)).then_rejected("delete_protected")
    given("deleting").when(ask(ChangeVm, protected=True)).then_rejected("wrong_phase")
    given("deleting").when(ask(ChangeVm, protected=False)).then(VmChanged)


@pytest.mark.parametrize(
    "labels",
    [
        {"": "a"},
        {"A": "a"},
        {"-a": "a"},
        {"a" * 64: "a"},
        {"a": "\n"},
        {"a": "a" * 256},
        {f"k{n}": "" for n in range(65)},
    ],
)
def test_labels_have_limits(labels: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ask(ChangeVm, labels=labels)


def test_a_change_of_tags_from_before_it_had_other_names_is_the_same_request() -> None:
    tagged = given("running").when(ask(TagVm, tags=("a",)))
    tagged.and_when(ask(ChangeVm, tags=("a",))).then_nothing()
    tagged.and_when(ask(ChangeVm, tags=("b",), fingerprint="g")).then_rejected("idempotency_key_reused", 422)


@pytest.mark.parametrize("life", LIVES)
def test_every_vm_can_be_deleted_at_any_moment(life: str) -> None:
    before = living(life)
    done = given(life).when(ask(DeleteVm))
    if before.phase is Phase.DELETED:
        done.then_rejected("vm_deleted", 410)
    elif life == "deleting":
        done.then_rejected("operation_pending")
    elif before.node is None:
        cancelled = before.pending.operation if before.pending else None
        done.then(VmDeletionRequested, VmDeleted, cancels=cancelled)
        deleted: Any = done.events[1]
        assert deleted.operation == uid(20)
        assert done.after.phase is Phase.DELETED
    else:
        cancelled = before.pending.operation if before.pending else None
        done.then(VmDeletionRequested, cancels=cancelled, deadline=at(100) + vm.DELETE_DEADLINE)
        assert done.after.desired is Desired.ABSENT
        gone = done.and_when(report(ABSENT)).then(VmDeleted, operation=uid(20), node=NODE).after
        assert (gone.phase, gone.pending) == (Phase.DELETED, None)


def test_what_never_was_cannot_be_asked_anything() -> None:
    for command in (
        *(command for command, _ in ASKED.values()),
        ask(DeleteVm),
        ask(TagVm, tags=()),
        schedule(),
        report(ON),
    ):
        given(None).when(command).then_rejected("vm_not_found", 404)


# ── retry, abandon, forget ──────────────────────────────────────────────────────────────────────────────────────────

#: What a retry asks for again, by situation; in any other it is refused.
RETRIES = {
    "failed": Verb.START,
    "failed, no node": Verb.START,
    "abandoned": Verb.START,
    "stop failed": Verb.STOP,
    "deleting, failed": Verb.DELETE,
}


@pytest.mark.parametrize("life", LIVES)
def test_what_failed_can_be_retried(life: str) -> None:
    before = living(life)
    done = given(life).when(ask(RetryVm))
    if before.phase is Phase.DELETED:
        done.then_rejected(GONE, 410)
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
    late.when(ask(RetryVm)).then(VmRetryRequested, again=Verb.DELETE)
    late.when(ask(ChangeVm, 14, protected=True)).then_rejected("wrong_phase")


@pytest.mark.parametrize("life", LIVES)
def test_what_is_pending_can_be_abandoned(life: str) -> None:
    before = living(life)
    done = given(life).when(ask(AbandonVm))
    if before.phase is Phase.DELETED:
        done.then_rejected(GONE, 410)
    elif before.pending is None:
        done.then_rejected(WRONG)
    elif before.pending.verb is Verb.DELETE:
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
        done.then_rejected(GONE, 410)
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


# ── restart policy ──────────────────────────────────────────────────────────────────────────────────────────────────


def policed(policy: str, *more: Any) -> Story[Vm]:
    return given([create(restart_policy=policy), schedule(), report(ON, 1, boots=1), *more])


@pytest.mark.parametrize(
    ("policy", "cause", "again"),
    [
        ("no", "guest", False),
        ("no", "crashed", False),
        ("on-failure", "guest", False),
        ("on-failure", "crashed", True),
        ("always", "guest", True),
        ("always", "crashed", True),
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


# ── rebuild ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("life", LIVES)
def test_a_vm_that_was_created_is_rebuilt_unless_something_is_under_way(life: str) -> None:
    before = living(life)
    done = given(life).when(ask(RebuildVm, image="other"))
    if before.phase is Phase.DELETED:
        done.then_rejected(GONE, 410)
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
    again = failed.when(ask(RetryVm)).then(VmRetryRequested, again=Verb.START).after
    assert (again.disk, again.boots, again.image, again.phase) == (2, 3, "other", Phase.SCHEDULED)
    assert again.disk_made == 1
    late = given([*STOPPED, ask(RebuildVm, 12, image="other"), expire(12)])
    assert late.state is not None
    assert (late.state.phase, late.state.disk) == (Phase.FAILED, 2)


# ── resize ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("life", LIVES)
def test_a_vm_that_was_created_is_resized_unless_something_is_under_way(life: str) -> None:
    before = living(life)
    done = given(life).when(ask(ResizeVm, memory_mib=1024))
    if before.phase is Phase.DELETED:
        done.then_rejected(GONE, 410)
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
    refusal = given("stopped").when(ask(ResizeVm, disk_gib=3)).then_rejected("disk_cannot_shrink", 422)
    assert refusal.field == "disk_gib"
    assert "4 GiB" in refusal.detail
    given("stopped").when(ask(ResizeVm, disk_gib=4)).then(VmResized)
    given("stopped").when(ask(ResizeVm, vcpus=1, memory_mib=64)).then(VmResized)
    given("stopped").when(ask(ResizeVm)).then_rejected("invalid_request", 422)


# ── create ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_vm_is_requested_with_all_that_was_asked() -> None:
    asked = create(region="north", tags=("a", "b", "a"), ssh_keys=("ssh-ed25519 AAAA",))
    done = given(None).when(asked)
    done.then(VmRequested, vm=ID, name="web", image="base", region="north", tags=("a", "b"))
    state = done.after
    assert (state.desired, state.boots, state.node, state.epoch) == (Desired.ON, 1, None, 0)
    assert state.pending is not None
    assert state.pending.deadline == at() + vm.PLACEMENT_DEADLINE


@pytest.mark.parametrize("life", LIVES)
def test_creating_again_is_one_vm_for_ever(life: str) -> None:
    story = given(life)
    story.when(create(at=at(999))).then_nothing()
    story.when(create(fingerprint="other")).then_rejected("idempotency_key_reused", 422)
    refusal = story.when(create(operation=uid(99))).then_rejected("vm_exists")
    gone = lived(LIVES[life][0]).phase is Phase.DELETED
    assert ("was deleted, and is never used again" in refusal.detail) is gone


# ── idempotency ─────────────────────────────────────────────────────────────────────────────────────────────────────

REPEATS = [
    ("running", ask(StopVm)),
    ("running", ask(RestartVm)),
    ("running", ask(DeleteVm)),
    ("running", ask(TagVm, tags=("a",))),
    ("running", ask(ChangeVm, name="db", protected=True)),
    ("running", ask(PauseVm)),
    ("running", ask(SuspendVm)),
    ("paused", ask(ResumeVm)),
    ("suspended", ask(ResumeVm)),
    ("stopped", ask(StartVm)),
    ("failed", ask(StartVm)),
    ("requested", ask(DeleteVm)),
    ("failed", ask(RetryVm)),
    ("running", ask(ResizeVm, vcpus=2)),
    ("running", ask(RebuildVm, image="base")),
    ("starting", ask(AbandonVm)),
    ("lost", forget()),
]


@pytest.mark.parametrize(("life", "command"), REPEATS)
def test_the_same_operation_again_is_accepted_and_changes_nothing(life: str, command: Any) -> None:
    done = given(life).when(command)
    done.and_when(command.model_copy(update={"at": at(5000)})).then_nothing()
    other = done.and_when(command.model_copy(update={"fingerprint": "other"}))
    assert other.then_rejected("idempotency_key_reused", 422).field == "Idempotency-Key"


def test_an_operation_id_serves_one_verb() -> None:
    given("stopped").when(ask(StartVm, 11)).then_rejected("idempotency_key_reused", 422)


def test_operations_are_remembered_beyond_the_end() -> None:
    deleted = living("deleted")
    assert dict(deleted.operations.items()) == {uid(10): Known("create", "f"), uid(13): Known("delete", "f")}
    given("deleted").when(ask(DeleteVm, 13)).then_nothing()


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


# ── reports ─────────────────────────────────────────────────────────────────────────────────────────────────────────

BOOTED: Any = {"boots": 9}
IMAGE: Any = {"step": "image"}

#: What a report without an error means, by situation: the event, or None.
REPORTS: list[tuple[str, Power, dict[str, Any], type[Any] | None]] = [
    ("requested", ON, BOOTED, None),
    ("unschedulable", ABSENT, {}, None),
    ("scheduled", ON, {"boots": 1}, VmStarted),
    ("scheduled", ON, {"boots": 0}, None),
    ("scheduled", OFF, {}, None),
    ("scheduled", ABSENT, {}, None),
    ("scheduled", UNKNOWN, {}, None),
    ("scheduled", ABSENT, IMAGE, VmPreparing),
    ("scheduled", OFF, {"step": "domain"}, VmPreparing),
    ("preparing", ABSENT, IMAGE, None),
    ("preparing", ABSENT, {"step": "disk"}, VmPreparing),
    ("running", ON, BOOTED, None),
    ("running", ON, {"addresses": ("192.0.2.7",)}, None),
    ("running", ON, {"addresses": ("192.0.2.8",)}, VmAddressesChanged),
    ("running", ON, {"addresses": ()}, None),
    ("running", OFF, {}, VmStopped),
    ("running", OFF, {"step": "start"}, None),
    ("running", ABSENT, {}, VmFailed),
    ("running", ABSENT, IMAGE, None),
    ("running", UNKNOWN, {}, None),
    ("stopping", ON, BOOTED, None),
    ("stopping", OFF, {}, VmStopped),
    ("stopping", ABSENT, {}, VmFailed),
    ("stopping", UNKNOWN, {}, None),
    ("restarting", ON, {"boots": 1}, None),
    ("restarting", OFF, {}, None),
    ("restarting", OFF, {"step": "start"}, None),
    ("restarting", ON, {"boots": 2}, VmStarted),
    ("restarting", ABSENT, {}, VmFailed),
    ("stopped", OFF, {}, None),
    ("stopped", ON, BOOTED, None),
    ("stopped", ABSENT, {}, VmFailed),
    ("stopped", OFF, {"step": "stop"}, None),
    ("starting", OFF, {}, None),
    ("starting", OFF, {"step": "start"}, None),
    ("starting", ON, {"boots": 1}, None),
    ("starting", ON, {"boots": 2}, VmStarted),
    ("failed", ON, BOOTED, None),
    ("failed", OFF, {}, None),
    ("failed", ABSENT, {}, None),
    ("failed, no node", ABSENT, {}, None),
    ("retrying", ABSENT, {}, None),
    ("retrying", ABSENT, IMAGE, VmPreparing),
    ("retrying", ON, {"boots": 1}, None),
    ("retrying", ON, {"boots": 2}, VmStarted),
    ("lost", ON, {"boots": 1}, VmStarted),
    ("lost", OFF, {}, VmStopped),
    ("lost", ABSENT, {}, VmFailed),
    ("lost", UNKNOWN, {}, None),
    ("lost while scheduled", ABSENT, IMAGE, VmPreparing),
    ("lost while scheduled", ON, {"boots": 1}, VmStarted),
    ("lost while scheduled", ABSENT, {}, None),
    ("lost while stopped", OFF, {}, VmStopped),
    ("lost while stopped", ABSENT, {}, VmFailed),
    ("lost while starting", OFF, {"step": "start"}, VmPreparing),
    ("lost while starting", OFF, {}, None),
    ("lost while starting", ON, {"boots": 2}, VmStarted),
    ("lost while stopping", OFF, {}, VmStopped),
    ("deleting", ON, BOOTED, None),
    ("deleting", OFF, {}, None),
    ("deleting", ABSENT, {"step": "remove"}, None),
    ("deleting", ABSENT, {}, VmDeleted),
    ("deleting", UNKNOWN, {}, None),
    ("deleting, late", ABSENT, {}, VmDeleted),
    ("deleting, failed", ABSENT, {}, VmDeleted),
    ("deleting, failed", OFF, {}, None),
    ("running", HALT, {}, None),
    ("running", SAVED, {}, None),
    ("pausing", ON, BOOTED, None),
    ("pausing", HALT, {}, VmPaused),
    ("pausing", OFF, {}, VmFailed),
    ("pausing", ABSENT, {}, VmFailed),
    ("paused", HALT, {}, None),
    ("paused", ON, BOOTED, None),
    ("paused", OFF, {}, VmStopped),
    ("paused", ABSENT, {}, VmFailed),
    ("stalled", HALT, {}, None),
    ("resuming", HALT, {"step": "resume"}, None),
    ("resuming", ON, {"boots": 1}, VmResumed),
    ("resuming", OFF, {}, VmFailed),
    ("suspending", ON, BOOTED, None),
    ("suspending", HALT, {"step": "suspend"}, None),
    ("suspending", UNKNOWN, {}, None),
    ("suspending", SAVED, {}, VmSuspended),
    ("suspending", OFF, {}, VmFailed),
    ("suspending, paused", SAVED, {}, VmSuspended),
    ("suspended", SAVED, {}, None),
    ("suspended", ON, BOOTED, None),
    ("suspended", OFF, {}, VmStopped),
    ("suspended", ABSENT, {}, VmFailed),
    ("restoring", SAVED, {"step": "resume"}, None),
    ("restoring", HALT, {"step": "resume"}, None),
    ("restoring", ON, {"boots": 1}, VmResumed),
    ("restoring", OFF, {}, VmFailed),
    ("discarding", SAVED, {"step": "stop"}, None),
    ("discarding", OFF, {}, VmStopped),
    ("lost while paused", HALT, {}, VmPaused),
    ("lost while paused", OFF, {}, VmStopped),
    ("lost while suspended", SAVED, {}, VmSuspended),
    ("lost while suspended", ON, BOOTED, None),
    ("deleting", HALT, {}, None),
    ("deleting", SAVED, {}, None),
    ("deleted", ON, BOOTED, None),
    ("deleted", ABSENT, {}, None),
]


@pytest.mark.parametrize(
    ("life", "power", "more", "event"),
    [pytest.param(*row, id=f"{row[1]} {row[2]} when {row[0]}") for row in REPORTS],
)
def test_what_a_report_means(life: str, power: Power, more: dict[str, Any], event: type[Any] | None) -> None:
    done = given(life).when(report(power, **more))
    if event is None:
        done.then_nothing()
    else:
        done.then(event, at=at(50))


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("power", Power)
def test_old_and_foreign_reports_mean_nothing(life: str, power: Power) -> None:
    story = given(life)
    sequence = living(life).sequence
    for stale in (
        report(power, epoch=0, boots=9),
        report(power, epoch=3, boots=9),
        report(power, sequence=sequence, boots=9),
        report(power, sequence=max(0, sequence - 1), boots=9),
        report(power, node="n2", boots=9),
        broken(sequence),
        broken(node="n2"),
        broken(epoch=0),
    ):
        story.when(stale).then_nothing()


def test_a_new_lease_is_heard_whatever_the_sequence_was_before() -> None:
    """As of a log of an earlier version, whose sequences were times, or after a report that lied."""
    known = [*SCHEDULED, report(Power.ON, 2**63 - 1, boots=1)]
    given(known).when(report(Power.OFF, 2, cause="guest")).then_nothing()
    given(known).when(report(Power.OFF, 2, cause="guest", lease=1)).then(VmStopped)
    later = [*known, report(Power.OFF, 2, cause="guest", lease=2)]
    given(later).when(report(Power.ABSENT, 2**62, lease=1)).then_nothing()


def test_what_a_daemon_says_of_an_older_wish_is_no_news() -> None:
    older = {"desired": Desired.ON, "asked_boots": 1}
    given("starting").when(broken(**older)).then_nothing()
    given("deleting").when(report(Power.ABSENT, **older)).then_nothing()
    given("deleting").when(report(Power.ABSENT, desired=Desired.ABSENT, asked_boots=1)).then(VmDeleted)
    given("starting").when(broken(desired=Desired.ON, asked_boots=2)).then(VmFailed)


def test_a_report_that_said_nothing_new_does_not_silence_a_later_one() -> None:
    story = given("running")
    story.when(report(ON, 7)).then_nothing()
    assert living("running").sequence == 1
    story.when(report(OFF, 2)).then(VmStopped)


@pytest.mark.parametrize("cause", ["guest", "crashed"])
def test_a_guest_that_goes_off_by_itself_stays_off(cause: str) -> None:
    done = given("running").when(report(OFF, cause=cause)).then(VmStopped, cause=cause, operation=None)
    assert (done.after.desired, done.after.addresses) == (Desired.OFF, ())
    given("running").when(report(OFF)).then(VmStopped, cause="unknown")
    given("stopping").when(report(OFF, cause=cause)).then(VmStopped, cause="requested", operation=uid(11))


def test_a_domain_that_vanished_is_a_failure_with_a_way_out() -> None:
    gone = given("running").when(report(ABSENT)).then(VmFailed, code="domain_missing", operation=None)
    assert (gone.after.phase, gone.after.desired) == (Phase.FAILED, Desired.OFF)
    again = gone.and_when(ask(StartVm)).then(VmStartRequested)
    again.and_when(report(ON, 2000, boots=2)).then(VmStarted, operation=uid(20))
    given("stopping").when(report(ABSENT)).then(VmFailed, operation=uid(11))


@pytest.mark.parametrize("life", [life for life in LIVES if living(life).node and life in ALIVE])
def test_an_error_fails_what_is_pending(life: str) -> None:
    before = living(life)
    if before.failure is not None and before.failure.code == "image_invalid" and before.pending is None:
        given(life).when(broken()).then_nothing()
        given(life).when(broken(code="start_failed")).then(VmFailed, code="start_failed")
        return
    if before.pending is not None and before.pending.verb in (Verb.PAUSE, Verb.RESUME, Verb.SUSPEND):
        return  # the next story
    done = given(life).when(broken())
    done.then(VmFailed, code="image_invalid", operation=before.pending.operation if before.pending else None)
    assert (done.after.phase, done.after.pending) == (Phase.FAILED, None)
    assert done.after.desired is (Desired.ABSENT if before.desired is Desired.ABSENT else Desired.OFF)
    done.and_when(broken(2000)).then_nothing()


#: By situation: what the node sees, and what the VM is then and stays.
KEPT: list[tuple[str, Power, Phase, Desired]] = [
    ("pausing", ON, Phase.RUNNING, Desired.ON),
    ("suspending", ON, Phase.RUNNING, Desired.ON),
    ("suspending, paused", HALT, Phase.PAUSED, Desired.PAUSED),
    ("resuming", HALT, Phase.PAUSED, Desired.PAUSED),
    ("restoring", SAVED, Phase.SUSPENDED, Desired.SUSPENDED),
]


@pytest.mark.parametrize(("life", "power", "phase", "desired"), KEPT)
def test_a_guest_that_is_there_stays_there_when_its_operation_fails(
    life: str, power: Power, phase: Phase, desired: Desired
) -> None:
    operation = living(life).pending.operation  # type: ignore[union-attr]
    error = ReportError(code="suspend_failed", detail="no space left")
    done = given(life).when(report(power, error=error)).then(VmFailed, operation=operation, phase=phase)
    assert (done.after.phase, done.after.desired, done.after.pending) == (phase, desired, None)
    assert done.after.failure is not None


def test_a_guest_that_went_off_cannot_be_paused() -> None:
    done = given("pausing").when(report(OFF, cause="guest")).then(VmFailed, code="powered_off", operation=uid(16))
    assert (done.after.phase, done.after.desired, done.after.addresses) == (Phase.STOPPED, Desired.OFF, ())


def test_an_io_error_is_told_and_resume_leads_out() -> None:
    done = given("running").when(stalled()).then(VmFailed, code="io_error", phase=Phase.PAUSED, operation=None)
    assert (done.after.phase, done.after.desired) == (Phase.PAUSED, Desired.PAUSED)
    done.and_when(stalled(1001)).then_nothing()
    again = done.and_when(ask(ResumeVm)).then(VmResumeRequested)
    again.and_when(stalled(1002)).then(VmFailed, operation=uid(20))
    mended = again.and_when(report(ON, 1003, boots=1)).then(VmResumed, operation=uid(20)).after
    assert (mended.phase, mended.failure, mended.desired) == (Phase.RUNNING, None, Desired.ON)
    given("restarting").when(stalled()).then(VmFailed, operation=uid(14), phase=Phase.PAUSED)


def test_suspended_and_resumed_it_is_the_same_boot() -> None:
    ready = given([*RUNNING, RecordGuestReady(vm=ID, at=at(60)), ask(SuspendVm, 16), report(SAVED, 2)])
    assert ready.state is not None
    assert (ready.state.phase, ready.state.boots, ready.state.addresses) == (Phase.SUSPENDED, 1, ())
    resumed = ready.when(ask(ResumeVm)).and_when(report(ON, boots=1, addresses=("192.0.2.7",))).after
    assert (resumed.boots, resumed.started_at, resumed.ready_at) == (1, at(50), at(60))
    assert (resumed.phase, resumed.addresses, resumed.pending) == (Phase.RUNNING, ("192.0.2.7",), None)


def test_memory_takes_its_time_to_and_from_the_disk() -> None:
    patience = vm.POWER_DEADLINE + timedelta(seconds=512 / vm.SLOWEST_DISK)
    given("running").when(ask(SuspendVm)).then(VmSuspendRequested, deadline=at(100) + patience)
    given("suspended").when(ask(ResumeVm)).then(VmResumeRequested, deadline=at(100) + patience)
    given("paused").when(ask(ResumeVm)).then(VmResumeRequested, deadline=at(100) + vm.POWER_DEADLINE)


def test_the_guest_is_ready_once() -> None:
    key = HostKey(type="ssh-ed25519", key="AAAA", fingerprint="SHA256:x")
    ready = RecordGuestReady(vm=ID, at=at(70), hostname="web", host_keys=(key,))
    done = given("running").when(ready).then(VmGuestReady, hostname="web")
    assert (done.after.ready_at, done.after.host_keys) == (at(70), (key,))
    done.and_when(ready).then_nothing()
    for said in ({}, {"hostname": "other"}, {"host_keys": (key, key)}):
        done.and_when(RecordGuestReady(vm=ID, at=at(80), **said)).then_nothing()
    with pytest.raises(ValidationError):
        RecordGuestReady(vm=ID, at=at(80), host_keys=(key.model_copy(update={"key": "A" * 4097}),))
    with pytest.raises(ValidationError):
        RecordGuestReady(vm=ID, at=at(80), host_keys=(key,) * 9)
    given("deleted").when(ready).then_nothing()


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
DEADLINES: list[tuple[str, int, Verb, Phase, Desired]] = [
    ("requested", 10, Verb.CREATE, Phase.FAILED, Desired.OFF),
    ("unschedulable", 10, Verb.CREATE, Phase.FAILED, Desired.OFF),
    ("scheduled", 10, Verb.CREATE, Phase.FAILED, Desired.OFF),
    ("lost while scheduled", 10, Verb.CREATE, Phase.FAILED, Desired.OFF),
    ("stopping", 11, Verb.STOP, Phase.RUNNING, Desired.OFF),
    ("lost while stopping", 11, Verb.STOP, Phase.LOST, Desired.OFF),
    ("restarting", 14, Verb.RESTART, Phase.RUNNING, Desired.ON),
    ("starting", 12, Verb.START, Phase.FAILED, Desired.OFF),
    ("retrying", 15, Verb.START, Phase.FAILED, Desired.OFF),
    ("pausing", 16, Verb.PAUSE, Phase.RUNNING, Desired.ON),
    ("suspending", 16, Verb.SUSPEND, Phase.RUNNING, Desired.ON),
    ("suspending, paused", 17, Verb.SUSPEND, Phase.PAUSED, Desired.PAUSED),
    ("resuming", 17, Verb.RESUME, Phase.PAUSED, Desired.PAUSED),
    ("restoring", 17, Verb.RESUME, Phase.SUSPENDED, Desired.SUSPENDED),
    ("discarding", 11, Verb.STOP, Phase.SUSPENDED, Desired.OFF),
    ("deleting", 13, Verb.DELETE, Phase.RUNNING, Desired.ABSENT),
]


@pytest.mark.parametrize(("life", "operation", "verb", "phase", "desired"), DEADLINES)
def test_every_operation_times_out(life: str, operation: int, verb: Verb, phase: Phase, desired: Desired) -> None:
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
