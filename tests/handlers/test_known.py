"""What handlers tell a node that the log knows of its VMs, so that it need not repeat its reports."""

import asyncio
from typing import Any

from hypothesis import given, settings, strategies as st

from domain import vm
from domain.base import replace
from domain.contract import KnownVms, NodeReport, Power
from domain.contract.known import MOST_AWAITED, NOTHING, digest, fact
from domain.vm import Phase, Vm
from domain.vm.reports import observe
from eventstore.log.envelope import Ref
from eventstore.log.judge import Tip
from eventstore.log.store import Loaded
from handlers.nodes.known import AT_A_TIME, Known, fact_of
from handlers.world.world import World
from tests.domain import lives
from tests.domain.story import at, uid
from tests.waiting import eventually

AT_REST: dict[str, list[Any]] = {
    name: list(found)
    for name, found in vars(lives).items()
    if isinstance(found, list | tuple) and found and isinstance(found[0], vm.CreateVm)
}


def state_of(commands: list[Any]) -> Vm:
    state: Vm | None = None
    for command in commands:
        for event in vm.decide(state, command):
            state = vm.evolve(state, event)
    assert state is not None
    return state


def seen(report: NodeReport) -> int:
    """The fact of a node that has sent this report."""
    if report.power not in (Power.ON, Power.PAUSED, Power.SUSPENDED):
        return NOTHING
    return fact(report.vm, report.epoch, report.power, report.boots, report.resets, report.addresses)


reports = st.builds(
    NodeReport,
    vm=st.just(lives.ID),
    node=st.just(lives.NODE),
    epoch=st.sampled_from([1, 2]),
    sequence=st.just(10**9),
    at=st.just(at(90)),
    power=st.sampled_from([Power.ON, Power.PAUSED, Power.SUSPENDED]),
    boots=st.sampled_from([1, 2, 3]),
    resets=st.sampled_from([0, 1]),
    addresses=st.sampled_from([(), ("10.0.0.1",), ("10.0.0.2",)]),
)


@settings(max_examples=600, deadline=None)
@given(story=st.sampled_from(sorted(AT_REST)), report=reports)
def test_a_report_of_what_both_know_would_change_nothing(story: str, report: NodeReport) -> None:
    """Else a node that agrees with the log would keep something to itself that the log does not know."""
    state = state_of(AT_REST[story])
    known = fact_of(state)
    if known not in (None, NOTHING) and known == seen(report):
        assert observe(state, report, at(95)) == []


def test_that_says_something() -> None:
    assert {"RUNNING", "PAUSED", "SUSPENDED"} <= AT_REST.keys()
    """Some story agrees with some report, and a VM of which news is awaited is in no digest."""
    running = state_of(lives.RUNNING)
    report = NodeReport(
        vm=running.id,
        node=lives.NODE,
        epoch=1,
        sequence=1,
        at=at(),
        power=Power.ON,
        boots=1,
        addresses=running.addresses,
    )
    assert fact_of(running) == seen(report)
    for changed in (
        replace(running, booted=2),
        replace(running, epoch=2),
        replace(running, resets=1),
        replace(running, addresses=("10.9.9.9",)),
        replace(running, phase=Phase.PAUSED),
    ):
        assert fact_of(changed) not in (None, seen(report))
    for phase in (Phase.LOST, Phase.FAILED, Phase.SCHEDULED):
        assert fact_of(replace(running, phase=phase)) is None
    assert fact_of(state_of(lives.STOPPING)) is None, "an operation is pending"
    assert fact_of(replace(running, phase=Phase.STOPPED)) == NOTHING


class Bed:
    """A world whose VMs tests move on, and what handlers say of them."""

    def __init__(self) -> None:
        self.world = World()
        self.known = Known(self.world)
        self.versions: dict[str, int] = {}

    def put(self, number: int, **changes: Any) -> Vm:
        state = replace(state_of(lives.RUNNING), id=uid(number), **changes)
        ref = Ref("p", "vm", state.id)
        version = self.versions[state.id] = self.versions.get(state.id, 0) + 1
        loaded = Loaded(state, Tip(ref, version, version))
        self.world._keep(ref, loaded, self.world.get(ref).state)
        for watch in self.world._watches:
            watch.add(ref)
        self.world.nudge()
        return state


def said(node: str, *states: Vm) -> str:
    facts = [fact_of(each) for each in states if each.node == node]
    return digest(each for each in facts if each is not None)


async def test_it_follows_every_change() -> None:
    bed = Bed()
    assert bed.known.of("n1") is None, "nothing is said before all VMs were looked at"
    states = [bed.put(number) for number in range(1, AT_A_TIME + 10)]
    task = asyncio.create_task(bed.known.run())
    try:
        await eventually(lambda: bed.known.of("n1") == KnownVms(digest=said("n1", *states)), "all are known")
        states[0] = bed.put(1, phase=Phase.LOST)
        states[1] = bed.put(2, node="n2")
        states[2] = bed.put(3, phase=Phase.STOPPED)
        states[3] = bed.put(4, phase=Phase.DELETED)
        left = [each for each in states if each.phase is not Phase.DELETED]
        want = KnownVms(digest=said("n1", *left), awaited=(uid(1),))
        await eventually(lambda: bed.known.of("n1") == want, "each change counts")
        assert bed.known.of("n2") == KnownVms(digest=said("n2", *left))
        forgotten = bed.put(5, phase=Phase.DELETED, forgotten="gone")
        want = KnownVms(
            digest=said("n1", *[each for each in left if each.id != forgotten.id]), awaited=(uid(1), uid(5))
        )
        await eventually(lambda: bed.known.of("n1") == want, "a forgotten VM is awaited")
        for number in range(6, MOST_AWAITED + 6):
            bed.put(number, phase=Phase.LOST)
        await eventually(lambda: (found := bed.known.of("n1")) is not None and found.awaited is None, "too many")
        for number in range(1, AT_A_TIME + 10):
            bed.put(number, phase=Phase.DELETED)
        await eventually(lambda: bed.known.of("n1") == KnownVms(digest=digest([])), "nothing is left")
        assert not bed.known._facts and not bed.known._digests and not bed.known._awaited
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
