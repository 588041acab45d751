"""Readiness is a fact of one boot of the guest: it ends with that boot, and comes back with the next."""

from typing import Any

import pytest

from domain.base import Category
from domain.contract import Power
from domain.vm import (
    Phase,
    RebuildVm,
    RecordGuestReady,
    RestartVm,
    StartVm,
    Vm,
    VmFailed,
    VmGuestReady,
    VmGuestRebooted,
    VmStarted,
    VmStopped,
    evolve,
)
from tests.domain.lives import ID, RUNNING, ask, given, lose, report
from tests.domain.story import Story, at

ON, OFF = Power.ON, Power.OFF


def ready(seconds: int = 60, **more: Any) -> RecordGuestReady:
    return RecordGuestReady(vm=ID, at=at(seconds), **more)


def up(seconds: int = 50, sequence: int = 2000, **more: Any) -> Any:
    return report(ON, sequence, boots=more.pop("boots", 1), seconds=seconds, **more)


def run(*commands: Any) -> Story[Vm]:
    return given([*RUNNING, *commands])


def test_stopped_and_started_it_is_ready_when_its_new_boot_says_so() -> None:
    was = run(ready(boots=1, boot="a"))
    assert was.state is not None and was.state.ready is not None
    off = was.when(report(OFF, 1001, cause="guest")).then(VmStopped)
    assert off.after.ready is None
    on = off.and_when(ask(StartVm)).and_when(up(120, boots=2)).then(VmStarted)
    assert (on.after.ready, on.after.first_ready_at, on.after.guest_boots) == (None, at(60), 2)
    on.and_when(ready(121, boots=1, boot="a")).then_nothing()
    done = on.and_when(ready(180, boots=2, boot="b")).then(VmGuestReady, boots=2, boot="b")
    assert done.after.ready is not None
    assert (done.after.ready.at, done.after.first_ready_at) == (at(180), at(60))


def test_a_restart_ends_it_as_well() -> None:
    on = run(ready(boots=1)).when(ask(RestartVm)).and_when(up(120, boots=2)).then(VmStarted)
    assert on.after.ready is None


@pytest.mark.parametrize(
    ("commands", "stays"),
    [
        (RUNNING[:-1], True),
        ([*RUNNING, ask(RebuildVm, image="base")], True),
        ([*RUNNING, ask(RestartVm)], False),
    ],
    ids=["first disk", "new disk", "disk that ran before"],
)
def test_a_guest_of_an_earlier_version_that_was_faster_than_its_node_stays_ready(
    commands: list[Any], stays: bool
) -> None:
    """Its event does not say of which boot it is, and there was one event for each disk."""
    said = evolve(given(commands).state, VmGuestReady(at=at(110), host_keys=()))
    assert said is not None
    on = evolve(said, VmStarted(at=at(120), node="n1", sequence=2000, boots=said.boots))
    assert on is not None and on.first_ready_at == at(110)
    assert (on.ready is not None) == stays


def test_a_guest_faster_than_its_node_stays_ready() -> None:
    asked = run(ready(boots=1), ask(RestartVm)).when(ready(110, boots=2)).then(VmGuestReady, boots=2)
    asked.and_when(ready(111, boots=1, boot="x")).then_nothing()
    on = asked.and_when(up(120, boots=2)).then(VmStarted)
    assert on.after.ready is not None and on.after.ready.boots == 2


def test_a_reboot_from_inside_ends_it_and_brings_it_back() -> None:
    reset = run(ready(boots=1, boot="a")).when(up(70, resets=1)).then(VmGuestRebooted, resets=1)
    assert (reset.after.ready, reset.after.guest_boots, reset.after.phase) == (None, 2, Phase.RUNNING)
    reset.and_when(up(71, 2001, resets=1)).then_nothing()
    done = reset.and_when(ready(90, boots=1, boot="b")).then(VmGuestReady)
    assert done.after.ready is not None and done.after.guest_boots == 2


@pytest.mark.parametrize(("resets", "fired", "told"), [(1, 1, 1), (3, 1, 1), (1, 0, 0), (1, 2, 1)])
def test_a_reboot_by_the_watchdog_is_told_as_such(resets: int, fired: int, told: int) -> None:
    reset = run(ready(boots=1)).when(up(70, resets=resets, watchdog_resets=fired))
    reset.then(VmGuestRebooted, resets=resets, watchdog_resets=told)
    run(ready(boots=1)).when(up(70, watchdog_resets=1)).then_nothing()


def test_resets_without_end_are_few_events() -> None:
    first = run().when(up(70, resets=1)).then(VmGuestRebooted)
    first.and_when(up(75, 2001, resets=50)).then_nothing()
    later = first.and_when(up(110, 2002, resets=99)).then(VmGuestRebooted, resets=99)
    assert later.after.guest_boots == 100


def test_a_reboot_that_only_the_guest_told_of_counts_once() -> None:
    again = run(ready(60, boots=1, boot="a")).when(ready(200, boots=1, boot="b")).then(VmGuestReady)
    assert again.after.guest_boots == 2
    told = again.and_when(up(210, resets=1)).then(VmGuestRebooted)
    assert told.after.ready is not None and told.after.guest_boots == 2, "the node was late"
    truly = told.and_when(up(220, 2001, resets=2)).then(VmGuestRebooted)
    assert (truly.after.ready, truly.after.guest_boots) == (None, 3)


def test_a_guest_cannot_flood_the_log_with_boots() -> None:
    said = run(ready(60, boots=1, boot="a"))
    for second in range(61, 119, 10):
        said.when(ready(second, boots=1, boot=f"b{second}")).then_nothing()
    said.when(ready(120, boots=1, boot="c")).then(VmGuestReady)


def test_a_boot_of_the_host_ends_it_though_nobody_saw_it_off() -> None:
    here = given([*RUNNING[:-1], up(3, 3, host_boot="a"), ready(60, boots=1)])
    assert here.state is not None and here.state.host_boot == "a"
    here.when(up(70, host_boot="a")).then_nothing()
    anew = here.when(up(70, host_boot="b")).then(VmStarted, boots=1, host_boot="b")
    assert (anew.after.ready, anew.after.guest_boots) == (None, 2)


def test_a_node_that_was_silent_comes_back_to_a_guest_that_is_ready() -> None:
    lost = given([*RUNNING[:-1], up(3, 3, host_boot="a"), ready(60, boots=1), lose()])
    back = lost.when(up(300, host_boot="a")).then(VmStarted)
    assert back.after.ready is not None and back.after.guest_boots == 1


def test_what_is_gone_is_not_ready() -> None:
    gone = run(ready(boots=1)).when(report(Power.ABSENT, 1001)).then(VmFailed, code="domain_missing")
    assert gone.after.ready is None


def test_a_report_of_another_boot_counts_no_resets() -> None:
    run(ready(boots=1), ask(RestartVm)).when(report(ON, 2000, boots=1, resets=1, desired="on", asked_boots=1)).then(
        VmGuestRebooted
    )


def test_a_boot_that_nobody_asked_for_does_not_make_it_deaf() -> None:
    """A count that is a lie is no more than the last one that was asked for, or is refused."""
    most = 2**31 - 1
    came = given(RUNNING[:-1]).when(up(3, 3, boots=most)).then(VmStarted, boots=1)
    came.and_when(ready(60, boots=most)).then_rejected("invalid_request", Category.INVALID)
    came.and_when(ready(60, boots=1)).then(VmGuestReady, boots=1)
    came.and_when(up(70, 2001, boots=most, resets=1)).then(VmGuestRebooted)
