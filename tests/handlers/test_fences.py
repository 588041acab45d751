"""A rule that depends on another aggregate holds, whatever happens at the same moment."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from domain.kinds import KINDS
from domain.project import ProjectCreated, ProjectDeleted, ProjectDeletionBegun
from domain.vm import Phase, Vm, VmRequested
from eventstore.log.envelope import Context, Recorded, Ref
from eventstore.log.store import Change, EventStore, Tip
from handlers.apply import Applied, now
from handlers.commands.fences import Fences
from handlers.managers.deletions import Deletions
from handlers.world.turns import Turns
from handlers.world.world import World
from runtime.tasks.tasks import end
from tests.handlers import pairs
from tests.handlers.deciders import two
from tests.handlers.pairs import CONTEXT, SPEC, HeadStart, Pair, create_args, done
from tests.handlers.platform import WriteSide
from tests.waiting import eventually

#: How many pairs there are of each kind, and how many of them are under way at a time. Without the fence of a create,
#: one pair in eight has two winners.
PAIRS, AT_A_TIME = 120, 48
Make = Callable[[str, Path], Pair]
Answer = dict[str, Any]


@pytest.fixture(scope="module")
async def server(servers_home: Path) -> AsyncIterator[WriteSide]:
    """With what the pairs share."""
    async with pairs.shared(servers_home / "fences") as made:
        yield made


@pytest.fixture
async def side(server: WriteSide) -> WriteSide:
    """Two handlers processes, no nodes."""
    while sum(process.returncode is None for process in server.processes) < 2:
        await server.start()
    return server


async def states(side: WriteSide, after: int = 0) -> pairs.States:
    """All that begins behind a position of the log, folded."""
    found: dict[Ref, Any] = {}
    while page := await side.store.read(after):
        for recorded in page:
            if recorded.ref in found or recorded.version == 1:
                found[recorded.ref] = KINDS[recorded.ref.kind].evolve(found.get(recorded.ref), recorded.event)
        after = page[-1].position
    return found


async def test_exactly_one_of_a_pair_wins_in_two_processes(side: WriteSide) -> None:
    await race(side, pairs.create_and_project)


async def race(side: WriteSide, make: Make) -> None:
    """Exactly one of each pair wins, by the answers, and by what stands in the log afterwards."""
    slots = asyncio.Semaphore(AT_A_TIME)
    run = f"{uuid.uuid4().hex[:6]}"
    made = [make(f"{n}-{run}", side.home) for n in range(PAIRS)]
    start = await side.store.last_position()
    await pairs.put_all(side, [change for pair in made for change in pair.before])

    head_start = HeadStart()

    async def answers(pair: Pair) -> bool:
        async with slots:
            used, deleted = await both(side, pair, head_start)
            assert ("ok" in used) != ("ok" in deleted), (pair, used, deleted)
            return "ok" in used

    ran = await asyncio.gather(*(answers(pair) for pair in made))
    assert set(ran) == {True, False}, "nobody raced"
    found = await states(side, start)
    for pair, used in zip(made, ran, strict=True):
        assert (pair.used(found), pair.deleted(found)) == (used, not used), pair


async def both(side: WriteSide, pair: Pair, head_start: HeadStart) -> tuple[Answer, Answer]:
    """Both at a time, either of them a little earlier."""
    earlier = head_start.next()

    async def after(seconds: float, command: pairs.Command) -> Answer:
        await asyncio.sleep(max(0.0, seconds))
        started = time.perf_counter()
        answer = await side.decided(*command)
        head_start.answered(time.perf_counter() - started)
        return answer

    return await asyncio.gather(after(earlier, pair.use), after(-earlier, pair.delete))


async def test_many_who_refer_to_one_do_not_get_into_each_others_way(side: WriteSide) -> None:
    """While it is renamed, too."""
    tag = await pairs.tag(side, "busy")
    its = [await pairs.failed_vm(side, "shared", "shared") for _ in range(60)]
    args = [{"vm": ref.id, "tags": ["busy"]} for ref in its]

    async def renames() -> None:
        for n in range(10):
            assert "ok" in await side.decided("system", "tag", "rename", {"tag": "busy", "name": str(n)})

    changes = [asyncio.create_task(side.decided("shared", "vm", "change", one)) for one in args]
    await renames()
    assert all("ok" in answer for answer in await asyncio.gather(*changes))
    refused = await side.ask("system", "tag", "delete", {"tag": "busy"})
    assert refused["problem"]["code"] == "tag_in_use"
    assert refused["problem"]["detail"].startswith("60 VMs")
    assert "TagDeletionBegun" not in await side.types(tag.project, tag.kind, tag.id), "known before: nothing is stored"


async def test_a_deletion_is_not_starved(side: WriteSide) -> None:
    """By creates in other projects that never end."""
    target = await pairs.project(side, "quiet")
    stop = False

    async def creates() -> int:
        count = 0
        while not stop:
            await side.ok("shared", "vm", "create", create_args(str(uuid.uuid4())))
            count += 1
        return count

    busy = [asyncio.create_task(creates()) for _ in range(32)]
    await asyncio.sleep(0)
    answer = await side.ask("quiet", "project", "delete", {"project": "quiet"})
    stop = True
    assert sum(await asyncio.gather(*busy)) > 0
    assert "ok" in answer, answer
    assert await side.types(target.project, "project", "quiet") == [
        *("ProjectCreated", "ProjectDeletionBegun", "ProjectDeleted")
    ]


# ── a crash after each step, and each step twice ────────────────────────────────────────────────────────────────────


def requested(project: str, vm: str, operation: str, **more: Any) -> VmRequested:
    asked = {**done(), "operation": operation, "deadline": now()}
    return VmRequested(**asked, vm=vm, project=project, name="web", image="shared", spec=SPEC, **more)


async def deletion(side: WriteSide, project: str, operation: str, *, finished: bool) -> None:
    """What stands in the log after the first step of a deletion, or after both."""
    ref = Ref(project, "project", project)
    loaded = await side.store.load(ref, KINDS["project"].evolve)
    events: list[Any] = [ProjectDeletionBegun(at=now(), requested=operation, fingerprint="same")]
    if finished:
        events.append(ProjectDeleted(at=now(), operation=operation, fingerprint="same"))
    await side.store.append([Change(loaded.tip, events)], CONTEXT)


async def create(side: WriteSide, project: str, operation: str, **more: Any) -> Ref:
    """What stands in the log of a create that was not checked yet."""
    ref = Ref(project, "vm", str(uuid.uuid4()))
    await side.store.append([Change(Tip(ref), [requested(project, ref.id, operation, **more)])], CONTEXT)
    return ref


async def test_what_a_crash_leaves_is_finished_once(side: WriteSide) -> None:
    operations = [str(uuid.uuid4()) for _ in range(7)]
    await side.stop_all()
    for name in ("free", "used", "late", "again"):
        await pairs.project(side, name)
    await deletion(side, "free", operations[0], finished=False)
    in_use = await create(side, "used", operations[1])
    await deletion(side, "used", operations[2], finished=False)
    await deletion(side, "late", operations[3], finished=False)
    late = await create(side, "late", operations[4])
    await deletion(side, "again", operations[5], finished=True)
    behind = await create(side, "again", operations[6])
    remade = await side.store.load(Ref("again", "project", "again"), KINDS["project"].evolve)
    again = ProjectCreated(**done(), project="again", name="Again")
    await side.store.append([Change(remade.tip, [again])], CONTEXT)

    await asyncio.gather(side.start(), side.start())

    async def over() -> bool:
        found = await states(side)
        closing = [state for state in found.values() if getattr(state, "closing", None) is not None]
        return not closing and all(found[ref].phase is Phase.DELETED for ref in (late, behind))

    await eventually(over, "no deletion waits, and void VMs are gone")
    found = await states(side)
    names = {name: found[Ref(name, "project", name)] for name in ("free", "used", "late", "again")}
    assert {name: state.deleted for name, state in names.items()} == {
        **{"free": True, "used": False, "late": True, "again": False}
    }
    assert found[in_use].phase is not Phase.DELETED
    [*_, last] = await side.events("free", "project", "free")
    assert (last.context.actor, last.context.operation) == ("tester", operations[0])
    for ref, code in ((late, "project_being_deleted"), (behind, "project_not_found")):
        assert await side.types(ref.project, "vm", ref.id) == ["VmRequested", "VmFailed", "VmDeleted"]
        assert found[ref].failure.code == code

    # whoever asks again is told the same, and nothing more is stored
    before = await side.store.last_position()
    for name, operation in (("free", operations[0]), ("late", operations[3])):
        told = await side.ok(name, "project", "delete", {"project": name}, operation=operation)
        assert told["replayed"]
    for ref, operation in ((late, operations[4]), (behind, operations[6])):
        args = create_args(ref.id)
        told = await side.ask(ref.project, "vm", "create", args, operation=operation, fingerprint="f")
        assert told["problem"]["code"] == found[ref].failure.code
    told = await side.ask("used", "project", "delete", {"project": "used"}, operation=operations[2])
    assert told["problem"]["code"] == "project_not_empty"
    assert await side.store.last_position() == before


async def test_handlers_that_are_killed_leave_no_deletion_behind(side: WriteSide) -> None:
    names = [f"kill-{n}" for n in range(60)]
    await asyncio.gather(*(pairs.project(side, name) for name in names))
    operations = {name: {"operation": str(uuid.uuid4())} for name in names}
    deletes = [
        asyncio.create_task(side.ask(name, "project", "delete", {"project": name}, **operations[name]))
        for name in names
    ]
    await asyncio.wait(deletes, return_when=asyncio.FIRST_COMPLETED)
    for process in side.processes:
        process.kill()
    for one in deletes:
        one.cancel()
    await asyncio.gather(*deletes, return_exceptions=True)
    await side.stop_all()
    begun = [name for name in names if await side.has(name, "project", name, "ProjectDeletionBegun")]
    assert begun
    await side.start()

    async def decided() -> bool:
        found = await states(side)
        return all(found[Ref(name, "project", name)].deleted for name in begun)

    await eventually(decided, "all that has begun is finished")
    for name in names:
        told = await side.ok(name, "project", "delete", {"project": name}, **operations[name])
        assert told["replayed"] == (name in begun)
    for name in begun:
        types = await side.types(name, "project", name)
        assert types == ["ProjectCreated", "ProjectDeletionBegun", "ProjectDeleted"]


class Failing(EventStore):
    """Cannot append to some aggregates, for a reason that nobody thought of."""

    def __init__(self, side: WriteSide, broken: set[str]) -> None:
        super().__init__(side.nc, side.store.event_keys)
        self.broken = broken

    async def append(self, changes: Sequence[Change], context: Context, **more: Any) -> list[Recorded]:
        if any(change.tip.ref.id in self.broken for change in changes):
            raise RuntimeError("not today")
        return await super().append(changes, context, **more)


async def test_a_deletion_that_fails_delays_no_other_and_is_tried_again(server: WriteSide) -> None:
    await server.stop_all()
    names = [f"try-{n}" for n in range(3)]
    for name in names:
        await pairs.project(server, name)
        await deletion(server, name, str(uuid.uuid4()), finished=False)
    store, world = Failing(server, {names[0]}), World()
    deletions = Deletions(store, world)
    tasks = [
        asyncio.create_task(world.follow(server.nc, Turns(lambda: 0), server.store.event_keys)),
        asyncio.create_task(deletions.driver().run()),
    ]

    def left() -> set[str]:
        return {ref.id for ref in world.references.deletions}

    last = await store.last_position()
    await eventually(lambda: world.position >= last and left() == {names[0]}, "the others are finished")
    store.broken.clear()
    await eventually(lambda: not left(), "tried again")
    await end(tasks)


async def test_a_create_is_checked_where_the_feed_is_silent(server: WriteSide) -> None:
    """The log is read then."""
    ref = await create(server, "shared", str(uuid.uuid4()))
    history = await server.store.history(ref)
    world = World()
    applied: Applied[Vm] = Applied(None, Tip(ref).after(history[-1]), history)
    project = Ref("shared", "project", "shared")
    known = {project: (await server.store.load(project, KINDS["project"].evolve)).tip}
    await Fences(server.store, world).confirm(ref, applied, known, CONTEXT)
    assert world.frontier.position >= applied.tip.position


async def test_vms_of_an_earlier_project_are_not_inherited(side: WriteSide) -> None:
    """A log of an earlier version may hold some: they have to be deleted first."""
    await pairs.project(side, "earlier")
    vm = await pairs.failed_vm(side, "earlier", "shared")
    loaded = await side.store.load(Ref("earlier", "project", "earlier"), KINDS["project"].evolve)
    await side.store.append([Change(loaded.tip, [ProjectDeleted(**done())])], CONTEXT)
    args = {"project": "earlier", "name": "E"}
    refused = await side.ask("earlier", "project", "create", args)
    assert refused["problem"]["code"] == "project_not_empty"
    await side.ok("earlier", "vm", "delete", {"vm": vm.id})
    await side.ok("earlier", "project", "create", args)


@pytest.fixture(scope="module")
async def deciders(server: WriteSide) -> AsyncIterator[WriteSide]:
    """Two of handlers, each of which learns from the log what the other did. No process decides beside them.

    They stay for all races: each start reads the whole log, which grows with each race.
    """
    await server.stop_all()
    async with two(server.nats.url, server.home):
        yield server


@pytest.mark.parametrize("make", pairs.ALL, ids=lambda make: make.__name__)
async def test_exactly_one_of_a_pair_wins(deciders: WriteSide, make: Make) -> None:
    await race(deciders, make)
