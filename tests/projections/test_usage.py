"""Usage is what a count over the states of all VMs comes to, at every position and at every time."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings, strategies as st

from domain import vm
from domain.base import Event, Rejected, Resources
from domain.contract import Power
from domain.vm import Phase, Vm
from eventstore.log.envelope import Recorded, Ref
from projections import database, rebuild, usage
from projections.books import MODELS
from projections.model import Row, Step
from projections.usage import UsageView
from runtime.local.servers import Postgres
from tests.domain.lives import LIVES, ask, report
from tests.domain.story import NOW, stored, uid
from tests.projections.cloud import Cloud, projected
from tests.projections.test_upgrade import is_stored, made, relations, running, sound  # noqa: F401  (a fixture)
from tests.waiting import eventually

NOTHING = {"vms": 0, "vcpus": 0, "memory_mib": 0, "disk_gib": 0}
UNPLACED = (Phase.REQUESTED, Phase.UNSCHEDULABLE)
#: Whether a VM, and whether its disk, is in use in a phase. A failed or lost VM may have no node, and so no disk.
IN_USE: Mapping[Phase, tuple[bool, bool]] = {
    **dict.fromkeys(UNPLACED, (False, False)),
    **dict.fromkeys((Phase.RUNNING, Phase.PAUSED), (True, True)),
    **dict.fromkeys((Phase.SCHEDULED, Phase.SUSPENDED, Phase.STOPPED, Phase.LOST, Phase.FAILED), (False, True)),
}


def counted(states: Iterable[Vm | None]) -> dict[str, dict[str, int]]:
    """What these VMs come to: the direct count that rows are held to."""
    in_use, promised = dict(NOTHING), dict(NOTHING)
    for state in states:
        if state is None or state.phase is Phase.DELETED:
            continue
        add(promised, 1, state.spec.vcpus, state.spec.memory_mib, state.spec.disk_gib)
        runs, has_disk = IN_USE[state.phase]
        size = state.running_size or state.spec.resources()
        if has_disk and state.node is not None:
            add(in_use, 0, 0, 0, size.disk_gib)
        if runs:
            add(in_use, 1, size.vcpus, size.memory_mib, 0)
    return {"in_use": in_use, "promised": promised}


def add(to: dict[str, int], *amounts: int) -> None:
    for name, amount in zip(NOTHING, amounts, strict=True):
        to[name] += amount


def amounts(view: UsageView) -> dict[str, Any]:
    return {"in_use": view["in_use"], "promised": view["promised"]}


def test_every_phase_has_its_words() -> None:
    """In the docstring, which defines what counts, and in the count of this test."""
    assert usage.__doc__ is not None
    _, *rows = [line[4:36] for line in usage.__doc__.splitlines() if line.startswith("    ")]
    assert sorted(phase for row in rows for phase in row.strip().split(", ")) == sorted(phase.value for phase in Phase)
    assert {*IN_USE, Phase.DELETED} == set(Phase)


GROWN = Resources(vcpus=4, memory_mib=2048, disk_gib=9)
#: What may happen after one of LIVES, as far as it is allowed.
TAILS = (
    ask(vm.ResizeVm, 40, vcpus=4, memory_mib=2048, disk_gib=9),
    ask(vm.ResizeVm, 41, memory_mib=256),
    ask(vm.StopVm, 42, force=True),
    report(Power.OFF, 2001),
    ask(vm.StartVm, 43),
    report(Power.ON, 2002, boots=2, size=GROWN),
    report(Power.ON, 2003, boots=3),
    ask(vm.DeleteVm, 44),
    report(Power.ABSENT, 2004),
)


def happened(commands: Iterable[Any]) -> list[Event]:
    """The events that follow from these commands; those that are refused are left out."""
    state: Vm | None = None
    events: list[Event] = []
    for command in commands:
        try:
            decided = vm.decide(state, command)
        except Rejected:
            continue
        for event in decided:
            events.append(stored(event))
            state = vm.evolve(state, events[-1])
    return events


lives = st.tuples(st.sampled_from(sorted(LIVES)), st.lists(st.sampled_from(range(len(TAILS))), max_size=7))


@settings(max_examples=60, deadline=None)
@given(st.lists(lives, min_size=1, max_size=4), st.data())
def test_spans_come_to_the_count_at_every_position(several: list[tuple[str, list[int]]], data: st.DataObject) -> None:
    """Several VMs live at the same time, in any order of their events."""
    left = [happened([*LIVES[life][0], *(TAILS[n] for n in tail)]) for life, tail in several]
    states: list[Vm | None] = [None] * len(left)
    held: dict[Ref, usage.Spans] = {}
    counts: list[dict[str, Any]] = []
    while any(left):
        which = data.draw(st.sampled_from([n for n, events in enumerate(left) if events]))
        event, before = left[which].pop(0), states[which]
        after = states[which] = vm.evolve(before, event)
        position = len(counts) + 1
        at = NOW + timedelta(seconds=position)
        recorded = Recorded(position, f"nebula.events.p.vm.{uid(which)}", {}, b"", at)
        usage.fold(held, Step(recorded, event, before, Row(after, 1, position)))
        counts.append(counted(states))
    for position, count in enumerate(counts, 1):
        open_ = [
            span
            for spans in held.values()
            for span in spans
            if span.since <= position and (span.until is None or span.until > position)
        ]
        summed = {name: sum(getattr(span.share, name) for span in open_) for name in usage.SHARE}
        assert amounts(usage.view("p", {**summed, "vms": len(open_)}, position)) == count


async def lived(cloud: Cloud) -> list[Ref]:
    """VMs that were resized, paused, stopped, lost, deleted, and one that waits."""
    first, second, third = [await cloud.running() for _ in range(3)]
    waits = await cloud.create(spec=vm.Spec(vcpus=8, memory_mib=4096, disk_gib=20))
    await cloud.ask(first, vm.ResizeVm, vcpus=4, disk_gib=9)
    await cloud.ask(first, vm.PauseVm)
    await cloud.report(first, Power.PAUSED, 1)
    await cloud.ask(second, vm.StopVm)
    await cloud.report(second, Power.OFF, 1)
    await cloud.ask(second, vm.ResizeVm, memory_mib=2048)
    await cloud.ask(third, vm.DeleteVm)
    await cloud.report(third, Power.ABSENT)
    await cloud.ask(waits, vm.DeleteVm)
    return [first, second, third, waits]


async def proved(cloud: Cloud, pool: database.Pool, refs: list[Ref]) -> None:
    """What the queries answer is the count over the states, now, at every position and at every time."""
    histories = [await cloud.store.history(ref) for ref in refs]
    events = sorted((event for history in histories for event in history), key=lambda event: event.position)

    def states(upto: Any) -> list[Vm | None]:
        found = []
        for history in histories:
            state: Vm | None = None
            for event in history:
                if upto(event):
                    state = vm.evolve(state, event.event)
            found.append(state)
        return found

    end = await cloud.caught_up()
    now = await usage.now(pool, "default")
    assert (amounts(now), now["position"]) == (counted(states(lambda _: True)), end)
    changed = 1
    for at in range(events[0].position - 1, end + 1):
        found = await usage.as_of(pool, "default", at, 1)
        count = counted(states(lambda event: event.position <= at))  # noqa: B023
        assert amounts(found) == count, at
        if at > 1 and amounts(await usage.as_of(pool, "default", at - 1, 1)) != count:
            changed = at
        assert found["position"] == changed, at
    for event in events:
        for moment in (event.moment, event.moment - timedelta(microseconds=1)):
            found = await usage.as_of(pool, "default", moment, 1)
            assert amounts(found) == counted(states(lambda event: event.moment <= moment)), moment  # noqa: B023
    assert amounts(await usage.now(pool, "other")) == {"in_use": NOTHING, "promised": NOTHING}
    assert (await usage.as_of(pool, "other", end, 1))["position"] == 1


async def test_rows_come_to_the_count_now_and_then(tmp_path: Path, postgres: Postgres) -> None:
    async with projected(tmp_path, postgres) as (cloud, pool):
        refs = await lived(cloud)
        await proved(cloud, pool, refs)
        assert (await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault)).differing == ()
        # again, as one batch
        await rebuild.rebuild(cloud.nc, cloud.dsn, cloud.vault)
        await proved(cloud, pool, refs)


async def test_a_running_platform_gains_it(made: Cloud) -> None:  # noqa: F811
    """A version that knows it makes it beside the live read models. Those that need no states from others move over."""
    before = tuple(model for model in MODELS if model is not usage.USAGE)
    async with await database.connect(made.dsn, "test") as conn:  # as an earlier version left them
        await conn.execute("DROP TABLE nebula.usage; DELETE FROM nebula.schema_version WHERE model = 'usage'")
    assert await is_stored(made, before)()
    tables = await relations(made)
    async with running(made, MODELS, made.position), database.pool(made.dsn, "test") as pool:
        await eventually(is_stored(made, MODELS), "it is live")
        after = await relations(made)
        kept = {table for table in tables if tables[table] == after[table]}
        assert kept == {"operations", "events", "seeds", "seed_secrets"}
        assert after.keys() - tables.keys() == {"usage"}
        await made.create()
        await made.caught_up()
        assert amounts(await usage.now(pool, "default"))["promised"]["vms"] == 2
        await sound(made, MODELS)
