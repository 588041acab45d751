"""A VM's verbs in every situation, and requests that come again."""

from typing import Any

import pytest
from pydantic import ValidationError

from domain import vm
from domain.accepted_requests import AcceptedRequest
from domain.base import Category
from domain.contract import Desired, Power
from domain.vm import (
    AbandonVm,
    ChangeVm,
    DeleteVm,
    PauseVm,
    Phase,
    RebuildVm,
    ResizeVm,
    RestartVm,
    ResumeVm,
    RetryVm,
    StartVm,
    StopVm,
    SuspendVm,
    TagVm,
    VmChanged,
    VmDeleted,
    VmDeletionRequested,
    VmPauseRequested,
    VmRequested,
    VmRestartRequested,
    VmResumeRequested,
    VmStartRequested,
    VmStopRequested,
    VmSuspendRequested,
    VmTagged,
)
from domain.vm.verb import VmVerb
from domain.vm.verbs import VERBS as VALUES, start
from domain.vm.verbs.rescue import RescueVm, UnrescueVm
from tests.domain.lives import (
    ALIVE,
    BUSY,
    GONE,
    ID,
    LIVES,
    NODE,
    RUNNING,
    WRONG,
    ask,
    create,
    forget,
    given,
    lived,
    living,
    report,
    schedule,
)
from tests.domain.story import at, uid

ON, OFF, ABSENT, UNKNOWN = Power.ON, Power.OFF, Power.ABSENT, Power.UNKNOWN


@pytest.mark.parametrize(("life", "phase"), [(life, phase) for life, (_, phase) in LIVES.items()])
def test_each_life_leads_where_its_name_says(life: str, phase: Phase) -> None:
    assert living(life).phase is phase


# ── verbs ───────────────────────────────────────────────────────────────────────────────────────────────────────────

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
    "going into rescue": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
    "in rescue": (WRONG, True, True, True, True, WRONG, True),
    "stopped in rescue": (True, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG),
    "leaving rescue": (BUSY, BUSY, True, BUSY, BUSY, BUSY, BUSY),
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
        done.then_rejected(str(outcome), Category.GONE if outcome == GONE else Category.CONFLICT)


def test_the_table_of_verbs_is_complete() -> None:
    assert set(VERBS) == set(LIVES)


def test_every_verb_has_a_word_for_every_phase() -> None:
    assert {verb.name: set(verb.row) for verb in VALUES} == {verb.name: set(Phase) for verb in VALUES}
    assert all(help_ is None or len(help_) > 10 for verb in VALUES for help_ in verb.row.values())
    short = {phase: None for phase in Phase if phase is not Phase.LOST}
    parts = {name: value for name, value in vars(start.START).items() if name != "name"}
    with pytest.raises(TypeError, match="lacks the phases lost"):
        VmVerb(**{**parts, "name": "short", "row": short})
    with pytest.raises(TypeError, match="two verbs of a VM have the name start"):
        VmVerb(**parts, name="start")


def test_a_refusal_names_what_is_and_what_would_help() -> None:
    detail = given("running").when(ask(StartVm)).then_rejected("wrong_phase").detail
    assert detail == "cannot start a VM that is running: it is running already; use restart to boot it again"
    busy = given("stopping").when(ask(StartVm)).then_rejected("operation_pending").detail
    assert busy.startswith(f"stop (operation {uid(11)}) is under way; ")
    assert busy.endswith("; wait for it, overtake it with a forced stop or a delete, or abandon it")
    gone = given("deleting").when(ask(StartVm)).then_rejected("operation_pending").detail
    assert gone.endswith("; wait for it; if its node is permanently lost, forget the VM")


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
    tagged.and_when(ask(ChangeVm, tags=("b",), fingerprint="g")).then_rejected(
        "idempotency_key_reused", Category.INVALID
    )


@pytest.mark.parametrize("life", LIVES)
def test_every_vm_can_be_deleted_at_any_moment(life: str) -> None:
    before = living(life)
    done = given(life).when(ask(DeleteVm))
    if before.phase is Phase.DELETED:
        done.then_rejected("vm_deleted", Category.GONE)
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
        given(None).when(command).then_rejected("vm_not_found", Category.NOT_FOUND)


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
    story.when(create(fingerprint="other")).then_rejected("idempotency_key_reused", Category.INVALID)
    refusal = story.when(create(operation=uid(99))).then_rejected("vm_exists")
    gone = lived(LIVES[life][0]).phase is Phase.DELETED
    assert ("deleted VM, and cannot be used again" in refusal.detail) is gone


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
    ("running", ask(RescueVm)),
    ("in rescue", ask(UnrescueVm)),
    ("starting", ask(AbandonVm)),
    ("lost", forget()),
]


@pytest.mark.parametrize(("life", "command"), REPEATS)
def test_the_same_operation_again_is_accepted_and_changes_nothing(life: str, command: Any) -> None:
    done = given(life).when(command)
    done.and_when(command.model_copy(update={"at": at(5000)})).then_nothing()
    other = done.and_when(command.model_copy(update={"fingerprint": "other"}))
    assert other.then_rejected("idempotency_key_reused", Category.INVALID).field == "key"


def test_every_verb_is_repeated() -> None:
    repeated = {type(command) for _, command in REPEATS}
    assert {verb.name for verb in VALUES if verb.command not in repeated} == {"create"}


def test_an_operation_id_serves_one_verb() -> None:
    given("stopped").when(ask(StartVm, 11)).then_rejected("idempotency_key_reused", Category.INVALID)


def test_operations_are_remembered_beyond_the_end() -> None:
    deleted = living("deleted")
    assert dict(deleted.operations.items()) == {
        uid(10): AcceptedRequest("create", "f"),
        uid(13): AcceptedRequest("delete", "f"),
    }
    given("deleted").when(ask(DeleteVm, 13)).then_nothing()
