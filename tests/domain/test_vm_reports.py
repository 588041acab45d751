"""What nodes say of a VM."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from domain import vm
from domain.contract import Desired, Power, ReportError
from domain.vm import (
    HostKey,
    PauseVm,
    Phase,
    RecordGuestReady,
    RestartVm,
    ResumeVm,
    StartVm,
    SuspendVm,
    VmAddressesChanged,
    VmDeleted,
    VmFailed,
    VmGuestReady,
    VmPaused,
    VmPreparing,
    VmResumed,
    VmResumeRequested,
    VmStarted,
    VmStartRequested,
    VmStopped,
    VmSuspended,
    VmSuspendRequested,
)
from tests.domain.lives import (
    ALIVE,
    ID,
    LEASED,
    LIVES,
    RUNNING,
    SCHEDULED,
    SPOKEN,
    ask,
    broken,
    given,
    living,
    lose,
    report,
    stalled,
)
from tests.domain.story import at, uid

ON, OFF, ABSENT, UNKNOWN = Power.ON, Power.OFF, Power.ABSENT, Power.UNKNOWN
HALT, SAVED = Power.PAUSED, Power.SUSPENDED


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
    ("running", ON, {"address_sources": ()}, VmAddressesChanged),
    ("running", ON, {"address_sources": (LEASED,)}, VmAddressesChanged),
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
    older: dict[str, Any] = {"desired": Desired.ON, "asked_boots": 1}
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
    if before.pending is not None and before.pending.verb in ("pause", "resume", "suspend"):
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


# ── addresses ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_address_stands_with_who_says_so() -> None:
    leased = given(RUNNING).when(report(ON, 2, boots=1, address_sources=(LEASED,)))
    assert (leased.after.addresses, leased.after.address_sources) == (("192.0.2.7",), (LEASED,))
    same = leased.and_when(report(ON, 3, boots=1, address_sources=(LEASED,)))
    assert same.events == []
    spoken = leased.and_when(report(ON, 3, boots=1, addresses=("192.0.2.7",), address_sources=(SPOKEN,)))
    assert (spoken.after.addresses, spoken.after.address_sources) == (("192.0.2.9",), (SPOKEN,))
    asked_nobody = spoken.and_when(report(ON, 4, boots=1))
    assert asked_nobody.events == []
    none = spoken.and_when(report(ON, 4, boots=1, address_sources=()))
    assert (none.after.addresses, none.after.address_sources) == ((), ())


@pytest.mark.parametrize("then", ["restarted", "its host booted", "lost and another boot"])
def test_no_address_is_of_an_earlier_boot(then: str) -> None:
    start = [*SCHEDULED, report(ON, 1, boots=1, host_boot="a", address_sources=(LEASED,))]
    came: dict[str, Any] = {"boots": 1, "host_boot": "b"}
    match then:
        case "restarted":
            start, came = [*start, ask(RestartVm)], {"boots": 2, "host_boot": "a"}
        case "lost and another boot":
            start = [*start, lose()]
    told = given(start).when(report(ON, 2, **came))
    assert [type(event) for event in told.events] == [VmStarted]
    assert (told.after.addresses, told.after.address_sources) == ((), ())


def test_addresses_outlive_a_silence_of_the_node_and_a_pause() -> None:
    start = [*SCHEDULED, report(ON, 1, boots=1, host_boot="a", address_sources=(LEASED,))]
    back = given([*start, lose()]).when(report(ON, 2, boots=1, host_boot="a")).after
    assert back.address_sources == (LEASED,)
    paused = [*start, ask(PauseVm, 16), report(HALT, 2), ask(ResumeVm, 17)]
    assert given(paused).when(report(ON, 3, boots=1)).after.address_sources == (LEASED,)
