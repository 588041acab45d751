"""Rescue: a VM boots from a disk that is made for this, with its own disk as the second one, and back."""

from typing import Any

import pytest

from domain.base import Category
from domain.contract import WATCHDOG, Desired, Power
from domain.contract.wanted import RESCUE
from domain.references import Reference
from domain.vm import (
    ChangeVm,
    DeleteVm,
    HostKey,
    Phase,
    RebuildVm,
    RecordGuestReady,
    ResizeVm,
    RestartVm,
    RetryVm,
    StartVm,
    StopVm,
    Vm,
    VmDeletionRequested,
    VmFailed,
    VmGuestReady,
    VmRebuildRequested,
    VmStarted,
)
from domain.vm.features import features
from domain.vm.kind import VM
from domain.vm.verbs.rescue import RescueVm, UnrescueVm, VmRescueRequested, VmUnrescueRequested
from tests.domain.lives import ID, LIVES, RUNNING, SCHEDULED, ask, broken, given, living, report
from tests.domain.story import at, uid

OFF, ON = Power.OFF, Power.ON
OWN = HostKey(type="ssh-ed25519", key="AAAA", fingerprint="SHA256:own")
OTHER = HostKey(type="ssh-ed25519", key="BBBB", fingerprint="SHA256:rescue")


def ready(seconds: int, boots: int, key: HostKey = OWN) -> RecordGuestReady:
    return RecordGuestReady(vm=ID, at=at(seconds), boots=boots, boot=f"b-{boots}-{seconds}", host_keys=(key,))


def refers(state: Vm) -> set[str]:
    return {id_ for kind, id_ in VM.refers(state) if kind == "image"}


def refusal(state: Vm) -> tuple[str, Category]:
    """Code and status of what a VM answers that has something else to do."""
    if state.phase is Phase.DELETED:
        return "vm_deleted", Category.GONE
    return ("operation_pending" if state.pending else "wrong_phase"), Category.CONFLICT


@pytest.mark.parametrize("life", LIVES)
def test_it_is_taken_where_the_vm_runs_is_off_or_has_failed(life: str) -> None:
    """And where it ran on its disk before, has nothing pending and is not in rescue."""
    state, done = living(life), given(life).when(ask(RescueVm, image="tools"))
    taken = {"running", "stopped", "stop failed"}
    if life in taken:
        done.then(VmRescueRequested, image="tools", operation=uid(20), force_after=at(190))
        after = done.after
        assert (after.rescue, after.rescue_disk, after.boots) == ("tools", state.boots + 1, state.boots + 1)
        assert (after.desired, after.image, after.disk) == (Desired.ON, state.image, state.disk)
    else:
        codes = {
            **dict.fromkeys(("failed", "failed, no node", "abandoned"), "disk_missing"),
            **dict.fromkeys(("in rescue", "stopped in rescue"), "in_rescue"),
        }
        other = (
            "vm_deleted" if state.phase is Phase.DELETED else "operation_pending" if state.pending else "wrong_phase"
        )
        done.then_rejected(codes.get(life, other), Category.GONE if state.phase is Phase.DELETED else Category.CONFLICT)


@pytest.mark.parametrize("life", LIVES)
def test_unrescue_is_taken_only_in_rescue(life: str) -> None:
    state, done = living(life), given(life).when(ask(UnrescueVm))
    if life in ("in rescue", "stopped in rescue"):
        done.then(VmUnrescueRequested, operation=uid(20))
        assert (done.after.rescue, done.after.own_boots, done.after.boots) == (None, state.boots + 1, state.boots + 1)
    elif life in ("running", "stopped", "failed", "failed, no node", "abandoned", "stop failed"):
        assert "restart" in done.then_rejected("not_in_rescue").detail
    else:
        other = (
            "vm_deleted" if state.phase is Phase.DELETED else "operation_pending" if state.pending else "wrong_phase"
        )
        done.then_rejected(other, Category.GONE if state.phase is Phase.DELETED else Category.CONFLICT)


def test_its_own_image_is_what_it_boots_from_where_none_is_named() -> None:
    done = given("running").when(ask(RescueVm)).then(VmRescueRequested, image="base")
    assert refers(done.after) == {"base"}
    assert refers(given("running").when(ask(RescueVm, image="tools")).after) == {"base", "tools"}


def test_the_rescue_image_is_in_use_as_long_as_the_vm_is_in_rescue() -> None:
    before, state = living("running"), living("in rescue")
    assert VM.may_differ(before, state)
    back = given("in rescue").when(ask(UnrescueVm)).after
    assert VM.may_differ(state, back)
    assert VM.refers(state) - VM.refers(back) == {Reference("image", "rescue")}


def test_it_is_done_when_the_vm_is_up_anew_and_not_before() -> None:
    asked = given("running").when(ask(RescueVm, image="tools"))
    asked.and_when(report(ON, 1001, boots=1, seconds=110)).then_nothing()
    up = asked.and_when(report(ON, 1002, boots=2, seconds=120)).then(VmStarted, operation=uid(20))
    assert (up.after.phase, up.after.pending, up.after.rescue) == (Phase.RUNNING, None, "tools")
    back = up.and_when(ask(UnrescueVm, 21)).and_when(report(ON, 1003, boots=3, seconds=130))
    assert back.then(VmStarted, operation=uid(21)).after.rescue is None


@pytest.mark.parametrize(
    "commands",
    [
        [ask(RestartVm, 30), report(ON, 1001, boots=3, seconds=200)],
        [ask(StopVm, 30), report(OFF, 1001, seconds=200), ask(StartVm, 31), report(ON, 1002, boots=3, seconds=300)],
        [broken(1001), ask(RetryVm, 31), report(ON, 1002, boots=3, seconds=300)],
        [ask(ResizeVm, 30, vcpus=2, disk_gib=9)],
        [ask(ChangeVm, 30, name="db")],
    ],
)
def test_what_else_is_done_leaves_it_in_rescue_on_the_same_disk(commands: list[Any]) -> None:
    after = given([*LIVES["in rescue"][0], *commands]).state
    assert after is not None
    assert (after.rescue, after.rescue_disk) == ("rescue", 2)


def test_a_rescue_that_fails_can_be_retried_or_left() -> None:
    failed = given("running").when(ask(RescueVm, image="tools")).and_when(broken(1001, "image_missing"))
    failed.then(VmFailed, operation=uid(20))
    again = failed.and_when(ask(RetryVm, 21)).after
    assert (again.rescue, again.rescue_disk, again.boots) == ("tools", 2, 3)
    failed.and_when(ask(UnrescueVm, 21)).then(VmUnrescueRequested)


def test_a_rebuild_ends_it() -> None:
    rebuilt = given("in rescue").when(ask(RebuildVm, image="base")).then(VmRebuildRequested, disk=2)
    assert (rebuilt.after.rescue, rebuilt.after.disk, rebuilt.after.own_boots) == (None, 2, rebuilt.after.boots)
    rebuilt.and_when(ask(UnrescueVm, 21)).then_rejected("operation_pending")
    failed = given([*RUNNING, ask(RebuildVm, 19, image="base"), broken(1001)])
    failed.when(ask(RescueVm)).then_rejected("disk_missing")


def test_a_protected_vm_can_be_rescued_and_a_vm_in_rescue_deleted() -> None:
    given([*RUNNING, ask(ChangeVm, 19, protected=True)]).when(ask(RescueVm)).then(VmRescueRequested)
    given("in rescue").when(ask(DeleteVm)).then(VmDeletionRequested)
    given("going into rescue").when(ask(DeleteVm)).then(VmDeletionRequested, cancels=uid(18))


def test_what_the_rescue_system_says_is_not_said_of_the_own_disk() -> None:
    first = given([*RUNNING, ready(60, 1)]).when(ask(RescueVm))
    assert (first.after.host_keys, first.after.first_ready_at) == ((), at(60))
    up = first.and_when(report(ON, 1001, boots=2, seconds=120))
    said = up.and_when(ready(180, 2, OTHER)).then(VmGuestReady)
    assert said.after.ready is not None
    assert (said.after.ready.at, said.after.host_keys) == (at(180), (OTHER,))
    assert (said.after.first_ready_at, said.after.ready_at) == (at(60), at(60))
    back = said.and_when(ask(UnrescueVm, 21)).and_when(report(ON, 1002, boots=3, seconds=300))
    assert (back.after.ready, back.after.host_keys) == (None, ())
    own = back.and_when(ready(400, 3)).after
    assert (own.first_ready_at, own.ready_at, own.host_keys) == (at(60), at(400), (OWN,))


def test_a_guest_that_was_never_ready_on_its_own_disk_is_first_ready_after_the_rescue() -> None:
    """Also where the rescue system says so last of all, when the way back was asked for already."""
    up = given("running").when(ask(RescueVm)).and_when(report(ON, 1001, boots=2, seconds=120))
    leaving = up.and_when(ask(UnrescueVm, 21)).and_when(ready(180, 2, OTHER)).then(VmGuestReady)
    assert (leaving.after.first_ready_at, leaving.after.ready_at) == (None, None)
    back = leaving.and_when(report(ON, 1002, boots=3, seconds=300)).and_when(ready(400, 3))
    assert back.after.first_ready_at == at(400)


def test_a_second_rescue_is_from_a_fresh_disk() -> None:
    again = given("in rescue").when(ask(UnrescueVm, 30)).and_when(report(ON, 1001, boots=3, seconds=300))
    assert again.and_when(ask(RescueVm, 31)).after.rescue_disk == 4


def test_only_a_node_that_knows_it_can_boot_a_vm_in_rescue() -> None:
    assert features(living("in rescue")) == (RESCUE,)
    watched = given([*LIVES["in rescue"][0], ask(ChangeVm, 30, watchdog="reset")]).state
    assert watched is not None
    assert features(watched) == (WATCHDOG, RESCUE)
    assert features(given("in rescue").when(ask(UnrescueVm)).after) == ()


def test_who_never_had_a_disk_has_nothing_to_rescue() -> None:
    detail = given([*SCHEDULED, broken(1)]).when(ask(RescueVm)).then_rejected("disk_missing").detail
    assert "start or rebuild it" in detail
