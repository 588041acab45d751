"""The reconciler's rules: one by one, and together in a world where steps are lost, fail halfway, and repeat."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from domain.contract import Desired, Place, Power, Wanted
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.reconcile.plan import (
    Create,
    Destroy,
    Discard,
    Host,
    Pause,
    Persist,
    Refuse,
    Remaining,
    Remove,
    Restore,
    Shutdown,
    Start,
    Step,
    Suspend,
    Unpause,
    next_step,
    plan,
)
from tests.node_daemon.documents import wanted

VM = "7d3c5a52-0000-4000-8000-000000000001"
NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER, EARLIER = NOW + timedelta(seconds=30), NOW - timedelta(seconds=1)
HOST = Host("this boot")


def until(now: datetime) -> Remaining:
    """What is left until `force_after` by this clock."""
    return lambda want: max(0.0, (want.force_after - now).total_seconds()) if want.force_after else 0.0


def want(desired: Desired = Desired.ON, **changes: Any) -> Wanted:
    return wanted(VM, desired=desired, **changes)


def have(power: Power, **changes: Any) -> Have:
    values = {"boots": 1, "epoch": 1, "host_boot": HOST.boot_id, "files": True, **changes}
    return Have(vm=VM, power=power, **values)


NOTHING = Have(vm=VM, power=Power.ABSENT)
ON, OFF, ABSENT = Desired.ON, Desired.OFF, Desired.ABSENT
HALT, SAVED = Desired.PAUSED, Desired.SUSPENDED
STALLED = next_step(want(ON), have(Power.PAUSED, stalled=True), HOST, until(NOW))


@pytest.mark.parametrize(
    ("wants", "has", "step"),
    [
        (want(ON), NOTHING, Create(want(ON))),
        (want(ON), have(Power.ON), None),
        (want(ON), have(Power.ON, persistent=False), Persist(VM)),
        (want(ON), have(Power.OFF, cause="guest"), None),
        (want(ON), have(Power.OFF, host_boot="the last boot"), Start(want(ON))),
        (want(ON, boots=2), have(Power.OFF), Start(want(ON, boots=2))),
        (want(ON, boots=2, force_after=LATER), have(Power.ON), Shutdown(VM, 30.0)),
        (want(ON, boots=2, force_after=EARLIER), have(Power.ON), Destroy(VM)),
        (want(ON, boots=2), have(Power.ON), Destroy(VM)),
        (want(ON, boots=2, force_after=LATER), have(Power.ON, persistent=False), Persist(VM)),
        (want(OFF, force_after=LATER), have(Power.ON), Shutdown(VM, 30.0)),
        (want(OFF, force_after=NOW), have(Power.ON), Destroy(VM)),
        (want(OFF), have(Power.ON), Destroy(VM)),
        (want(OFF), have(Power.ON, persistent=False), Persist(VM)),
        (want(OFF), have(Power.OFF), None),
        (want(OFF), NOTHING, None),
        (want(ABSENT), have(Power.ON), Destroy(VM)),
        (want(ABSENT), have(Power.OFF), Remove(VM)),
        (want(ABSENT), replace(NOTHING, files=True), Remove(VM)),
        (want(ABSENT), NOTHING, None),
        (want(ON), have(Power.ON, remains=True), Discard(VM, leftover=True)),
        (want(ABSENT), have(Power.PAUSED, remains=True), Discard(VM, leftover=True)),
        (want(ON), have(Power.PAUSED), Unpause(VM)),
        (want(ON), have(Power.PAUSED, persistent=False), Persist(VM)),
        (want(ON), have(Power.PAUSED, stalled=True), STALLED),
        (want(ON, resume=True), have(Power.PAUSED, stalled=True), Unpause(VM, stalled=True)),
        (want(ON, resume=True), have(Power.PAUSED), Unpause(VM)),
        (want(ON), have(Power.SUSPENDED), Restore(want(ON))),
        (want(ON), have(Power.SUSPENDED, host_boot="the last boot"), Restore(want(ON))),
        (want(ON, boots=2), have(Power.PAUSED), Destroy(VM)),
        (want(ON, boots=2, force_after=LATER), have(Power.PAUSED), Unpause(VM)),
        (want(ON, boots=2), have(Power.SUSPENDED), Discard(VM)),
        (want(ON, boots=2, force_after=LATER), have(Power.SUSPENDED), Restore(want(ON, boots=2, force_after=LATER))),
        (want(HALT), have(Power.ON), Pause(VM)),
        (want(HALT), have(Power.ON, persistent=False), Persist(VM)),
        (want(HALT), have(Power.PAUSED), None),
        (want(HALT), have(Power.PAUSED, stalled=True), None),
        (want(HALT), have(Power.SUSPENDED), Restore(want(HALT))),
        (want(HALT), have(Power.OFF), None),
        (want(HALT), NOTHING, None),
        (want(SAVED), have(Power.ON), Suspend(want(SAVED))),
        (want(SAVED), have(Power.PAUSED), Suspend(want(SAVED))),
        (want(SAVED), have(Power.ON, persistent=False), Persist(VM)),
        (want(SAVED), have(Power.SUSPENDED, host_boot="the last boot"), None),
        (want(SAVED), have(Power.OFF), None),
        (want(SAVED, disk=2, boots=2), have(Power.SUSPENDED), Discard(VM)),
        (want(HALT, disk=2, boots=2), have(Power.SUSPENDED), Discard(VM)),
        (want(OFF, disk=2, boots=2, force_after=LATER), have(Power.SUSPENDED), Discard(VM)),
        (want(SAVED), NOTHING, None),
        (want(OFF), have(Power.PAUSED), Destroy(VM)),
        (want(OFF, force_after=LATER), have(Power.PAUSED), Unpause(VM)),
        (want(OFF, force_after=LATER), have(Power.PAUSED, stalled=True), Shutdown(VM, 30.0)),
        (want(OFF), have(Power.SUSPENDED), Discard(VM)),
        (want(OFF, force_after=LATER), have(Power.SUSPENDED), Restore(want(OFF, force_after=LATER))),
        (want(ON, disk=2, boots=2), have(Power.ON), Destroy(VM)),
        (want(ON, disk=2, boots=2), have(Power.PAUSED), Destroy(VM)),
        (want(ON, disk=2, boots=2), have(Power.SUSPENDED), Discard(VM)),
        (want(ON, disk=2, boots=2), have(Power.OFF), Create(want(ON, disk=2, boots=2))),
        (want(ON, disk=2, boots=2), NOTHING, Create(want(ON, disk=2, boots=2))),
        (want(ON, disk=2, boots=2), have(Power.ON, boots=2, disk=2), None),
        (want(ON, disk=2, boots=2), have(Power.OFF, boots=2, disk=2), None),
        (want(ON, disk=2, boots=3), have(Power.OFF, boots=2, disk=2), Start(want(ON, disk=2, boots=3))),
        (want(OFF, disk=2, boots=2), have(Power.OFF), None),
        (want(ABSENT), have(Power.PAUSED), Destroy(VM)),
        (want(ABSENT), have(Power.SUSPENDED), Remove(VM)),
        (want(SAVED), have(Power.ON, generation=2), None),
        (want(ON), have(Power.UNKNOWN), None),
        (want(ABSENT), have(Power.UNKNOWN), None),
        (want(ABSENT), have(Power.ON, epoch=2), None),
        (want(OFF), have(Power.ON, epoch=2), None),
        (want(OFF), have(Power.ON, generation=2), None),
        (want(ON, boots=2, epoch=2), have(Power.OFF, generation=2), Start(want(ON, boots=2, epoch=2))),
        # later in the same stream is newer, whatever the numbers say
        (want(OFF, place=Place(7, 5)), have(Power.ON, epoch=9, generation=9, place=Place(7, 4)), Destroy(VM)),
        (want(ON, place=Place(7, 5)), have(Power.ON, boots=9, generation=9, place=Place(7, 4)), Destroy(VM)),
        (want(ON, place=Place(7, 5)), have(Power.ON, boots=9, generation=9, place=Place(7, 5)), None),
        # a document that was brought back, or a stream that was set back: the numbers decide
        (want(OFF, place=Place(7, 3)), have(Power.ON, generation=2, place=Place(7, 4)), None),
        (want(OFF, place=Place(7, 3), generation=3), have(Power.ON, generation=2, place=Place(7, 4)), Destroy(VM)),
        # so they do in a stream that was made anew
        (want(OFF, place=Place(8, 5)), have(Power.ON, generation=2, place=Place(7, 4)), None),
        (want(OFF, place=Place(8, 1), generation=3), have(Power.ON, generation=2, place=Place(7, 4)), Destroy(VM)),
        # and of a domain that was made before its tag said a place
        (want(OFF, place=Place(7, 5)), have(Power.ON, generation=2), None),
        (want(ON, place=Place(7, 5)), have(Power.ON), None),
        (want(OFF, place=Place(7, 5), generation=2), have(Power.ON, generation=2), Destroy(VM)),
    ],
)
def test_a_rule(wants: Wanted, has: Have, step: Step | None) -> None:
    assert next_step(wants, has, HOST, until(NOW)) == step


@pytest.mark.parametrize("desired", list(Desired))
def test_a_foreign_domain_is_an_error_and_nothing_else(desired: Desired) -> None:
    step = next_step(want(desired), have(Power.UNKNOWN, foreign=True), HOST, until(NOW))
    assert isinstance(step, Refuse)
    assert step.code == "foreign_domain"


def test_an_io_error_is_an_error_until_somebody_resumes() -> None:
    assert isinstance(STALLED, Refuse)
    assert STALLED.code == "io_error"
    assert "resume" in STALLED.detail


def test_a_vm_without_a_document_is_left_alone() -> None:
    assert plan({}, {VM: have(Power.ON)}, HOST, until(NOW)) == []


# ── a world ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class World:
    """One VM, its document, and a host on which everything can go wrong."""

    document: Wanted = field(default_factory=want)
    seen: Have = NOTHING
    host: Host = HOST
    now: datetime = NOW
    destroyed_for: list[Wanted] = field(default_factory=list)

    def step(self) -> Step | None:
        return next_step(self.document, self.seen, self.host, until(self.now))

    def ask(self, **changes: Any) -> None:
        """A new document; a tombstone is the last."""
        if self.document.desired is not ABSENT:
            self.document = self.document.model_copy(update={**changes, "generation": self.document.generation + 1})

    def power_off(self) -> None:
        if self.seen.remains:
            self.seen = replace(self.seen, power=Power.SUSPENDED, stalled=False, remains=False)
        elif self.seen.power in (Power.ON, Power.PAUSED) and self.seen.persistent:
            self.seen = replace(self.seen, power=Power.OFF, stalled=False, cause="guest")
        elif self.seen.power in (Power.ON, Power.PAUSED):
            self.seen = Have(vm=VM, power=Power.ABSENT, files=self.seen.files)

    def memory_lost(self, document: Wanted) -> None:
        wanted = document.desired in (HALT, SAVED) or (document.desired is ON and self.seen.boots >= document.boots)
        counts = self.seen.disk == document.disk  # the memory goes with its disk, whatever is wanted now
        assert not (wanted and counts), "memory thrown away for no reason"

    def carry_out(self, step: Step, *, half: bool = False, answers: bool = True) -> None:
        """What the step does to the world; `half` of it, or to a guest that does not answer."""
        match step:
            case Create(wanted=document) | Start(wanted=document):
                self.seen = replace(self.seen, files=True)
                if isinstance(step, Start):
                    assert self.seen.disk == document.disk, "started on a disk that does not count"
                assert self.seen.power is not Power.SUSPENDED, "it would lose its memory"
                if not half and self.seen.power not in (Power.ON, Power.PAUSED):
                    self.seen = have(
                        Power.ON,
                        boots=document.boots,
                        disk=document.disk,
                        generation=document.generation,
                        host_boot=self.host.boot_id,
                        persistent=False,
                    )
            case Persist():
                self.seen = replace(self.seen, persistent=True)
            case Shutdown():
                if answers and self.seen.power is Power.ON:
                    self.power_off()
            case Pause():
                if not half and self.seen.power is Power.ON:
                    self.seen = replace(self.seen, power=Power.PAUSED)
            case Unpause():
                if not half and self.seen.power is Power.PAUSED:
                    self.seen = replace(self.seen, power=Power.ON, stalled=False)
            case Suspend():
                assert self.seen.persistent
                if not half and self.seen.power in (Power.ON, Power.PAUSED):
                    self.seen = replace(self.seen, power=Power.SUSPENDED, stalled=False)
            case Restore():
                if self.seen.power is Power.SUSPENDED:
                    self.seen = replace(self.seen, power=Power.PAUSED if half else Power.ON)
            case Discard(leftover=leftover):
                if self.seen.power in (Power.ON, Power.PAUSED):
                    self.seen = replace(self.seen, remains=False)
                elif not leftover and self.seen.power is Power.SUSPENDED:
                    self.memory_lost(self.document)
                    self.seen = replace(self.seen, power=Power.OFF)
            case Destroy():
                if self.seen.power in (Power.ON, Power.PAUSED):
                    self.destroyed_for.append(self.document)
                    self.memory_lost(self.document)
                self.power_off()
            case Remove():
                assert self.document.desired is ABSENT
                assert self.seen.power not in (Power.ON, Power.PAUSED)
                self.seen = replace(NOTHING, files=half)
            case Refuse():
                raise AssertionError("there is no foreign domain in this world")


def happenings() -> st.SearchStrategy[tuple[str, Any]]:
    grace = st.one_of(st.none(), st.integers(0, 60))
    return st.one_of(
        st.tuples(st.sampled_from(["step", "half a step", "twice", "lost", "deaf"]), st.none()),
        st.tuples(st.sampled_from(["on", "off", "restart"]), grace),
        st.tuples(st.sampled_from(["pause", "suspend", "resume", "paused", "suspended", "stalled"]), st.none()),
        st.tuples(st.sampled_from(["absent", "guest off", "host reboot", "rebuild", "remains"]), st.none()),
        st.tuples(st.just("time"), st.integers(1, 120)),
    )


def happen(world: World, what: str, value: Any) -> None:
    force_after = None if value is None else world.now + timedelta(seconds=value)
    step = world.step()
    match what:
        case "step" | "half a step" | "twice" | "deaf":
            for _ in range(2 if what == "twice" else 1):
                if step is not None and not isinstance(step, Refuse):
                    world.carry_out(step, half=what == "half a step", answers=what != "deaf")
        case "lost":
            pass
        case "on":
            if world.document.desired is OFF:
                world.ask(desired=ON, boots=world.document.boots + 1, force_after=force_after)
        case "restart":
            if world.document.desired is ON:
                world.ask(boots=world.document.boots + 1, force_after=force_after)
        case "rebuild":
            if world.document.desired is not ABSENT:
                boots, disk = world.document.boots + 1, world.document.disk + 1
                world.ask(desired=ON, boots=boots, disk=disk, force_after=None)
        case "off":
            world.ask(desired=OFF, force_after=force_after)
        case "pause" | "suspend":
            if world.document.desired is ON:
                world.ask(desired=HALT if what == "pause" else SAVED, resume=False)
        case "resume":
            if world.document.desired in (HALT, SAVED):
                world.ask(desired=ON, resume=True)
        case "paused" | "stalled":  # by somebody else, or by QEMU
            if world.seen.power is Power.ON:
                world.seen = replace(world.seen, power=Power.PAUSED, stalled=what == "stalled")
        case "suspended":
            if world.seen.power in (Power.ON, Power.PAUSED) and world.seen.persistent:
                world.seen = replace(world.seen, power=Power.SUSPENDED, stalled=False, remains=False)
        case "remains":
            if world.seen.power in (Power.ON, Power.PAUSED) and world.seen.persistent:
                world.seen = replace(world.seen, remains=True)
        case "absent":
            world.ask(desired=ABSENT)
        case "guest off":
            world.power_off()
        case "host reboot":
            world.power_off()
            world.host = Host(world.host.boot_id + "'")
        case "time":
            world.now += timedelta(seconds=value)
        case _:
            raise AssertionError(what)


@settings(max_examples=500, deadline=None)
@example([("step", None), ("step", None), ("remains", None), ("suspended", None), ("twice", None)], True)
@given(st.lists(happenings(), max_size=40), st.booleans())
def test_it_converges_whatever_happened_before(history: list[tuple[str, Any]], answers: bool) -> None:
    world = World()
    for what, value in history:
        happen(world, what, value)
    for _ in range(12):
        step = world.step()
        if step is None or isinstance(step, Refuse):
            break
        world.carry_out(step, answers=answers)
        world.now += timedelta(seconds=61)
    step = world.step()
    if isinstance(step, Refuse):
        assert (step.code, world.seen.stalled, world.document.resume) == ("io_error", True, False)
        return
    assert step is None
    match world.document.desired:
        case Desired.ON:
            assert world.seen.boots >= world.document.boots
            assert world.seen.disk == world.document.disk
            assert world.seen.persistent
            assert world.seen.power in (Power.ON, Power.OFF)
        case Desired.PAUSED:
            assert world.seen.power in (Power.PAUSED, Power.OFF, Power.ABSENT)
        case Desired.SUSPENDED:
            assert world.seen.power in (Power.SUSPENDED, Power.OFF, Power.ABSENT)
        case Desired.OFF:
            assert world.seen.power in (Power.OFF, Power.ABSENT)
        case Desired.ABSENT:
            assert world.seen == NOTHING
