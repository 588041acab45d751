"""How new the permissions are that count: at the latest those of FRESH seconds ago, and all that is received since."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from domain.access import GIVES_ACCESS, Role
from domain.base import Event, Rejected
from domain.contract import Caller
from domain.project import ProjectRoleBound, ProjectRoleUnbound, evolve
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, EventStore, Unavailable
from handlers.commands import permissions
from handlers.commands.lookups import Args
from handlers.commands.permissions import Permissions
from handlers.commands.routes import ROUTES
from handlers.world.turns import Turns
from handlers.world.world import World
from runtime.tasks.tasks import end
from tests.handlers import pairs
from tests.handlers.pairs import CONTEXT, done
from tests.handlers.platform import WriteSide
from tests.waiting import eventually

CREATE, BIND = ROUTES["vm", "create"], ROUTES["project", "bind"]
PROJECT = Ref("shared", "project", "shared")


class Counted(EventStore):
    """A log that counts how often it was asked where it ends, and that can be out of reach."""

    asked = 0
    away = False

    async def last_position(self) -> int:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        return await super().last_position()


@dataclass
class Process:
    """What a handlers process knows: its store, its world, and the permissions that follow from it."""

    side: WriteSide
    world: World = field(default_factory=World)
    following: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        self.store = Counted(self.side.nc, self.side.store.event_keys, frontier=self.world.frontier)
        self.permissions = Permissions(self.store, self.world)

    async def follow(self) -> None:
        turns = Turns(lambda: 0)
        self.following = asyncio.create_task(self.world.follow(self.side.nc, turns, self.store.event_keys))
        await self.world.reached(await self.side.store.last_position())

    async def stop_reading(self) -> None:
        if self.following is not None:
            await end([self.following])

    async def put(self, event: Event) -> None:
        loaded = await self.side.store.load(PROJECT, evolve, fresh=True)
        await self.store.append([Change(loaded.tip, [event])], CONTEXT)

    async def bind(self, who: str) -> None:
        await self.put(ProjectRoleBound(**done(), principal=who, role=Role.ADMIN))

    async def unbind(self, who: str) -> None:
        await self.put(ProjectRoleUnbound(**done(), principal=who))

    async def may_create(self, who: str) -> bool:
        try:
            vm = Ref("shared", "vm", str(uuid.uuid4()))
            await self.permissions.check(CREATE, vm, {"vm": vm.id}, Caller(actor=who))
        except Rejected:
            return False
        return True


@pytest.fixture(scope="module")
async def server(servers_home: Path) -> AsyncIterator[WriteSide]:
    async with pairs.shared(servers_home / "current") as made:
        yield made


@pytest.fixture
async def two(server: WriteSide) -> AsyncIterator[tuple[Process, Process]]:
    both = Process(server), Process(server)
    for one in both:
        await one.follow()
    yield both
    for one in both:
        await one.stop_reading()


@pytest.fixture
def who() -> str:
    return f"oidc:https://issuer.example#{uuid.uuid4().hex}"


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is too old, however slow the machine is."""
    monkeypatch.setattr(permissions, "FRESH", 1e9)
    monkeypatch.setattr(permissions, "RENEWED", 1e9)


@pytest.mark.usefixtures("for_ever")
async def test_the_log_is_not_asked_for_each_command(two: tuple[Process, Process], who: str) -> None:
    mine, _ = two
    await mine.bind(who)
    assert [await mine.may_create(who) for _ in range(20)] == [True] * 20
    assert mine.store.asked == 1


@pytest.mark.usefixtures("for_ever")
async def test_what_this_process_has_stored_counts_immediately(two: tuple[Process, Process], who: str) -> None:
    """Without a question, also where it is not folded yet."""
    mine, _ = two
    await mine.bind(who)
    assert await mine.may_create(who)
    for _ in range(10):
        await mine.unbind(who)
        asked = mine.store.asked
        assert mine.world.frontier.newest(PROJECT) > mine.world.get(PROJECT).tip.position, "not folded yet"
        assert not await mine.may_create(who)
        assert mine.store.asked == asked + 1, "before a refusal"
        await mine.bind(who)
        assert await mine.may_create(who)
        assert mine.store.asked == asked + 1


@pytest.mark.usefixtures("for_ever")
async def test_what_is_received_counts_immediately(two: tuple[Process, Process], who: str) -> None:
    mine, other = two
    await mine.bind(who)
    assert await mine.may_create(who)
    await other.unbind(who)
    last = await other.store.last_position()
    await eventually(lambda: mine.world.frontier.position >= last, "received")
    assert not await mine.may_create(who)


async def test_what_another_process_has_stored_counts_soon(two: tuple[Process, Process], who: str) -> None:
    mine, other = two
    for _ in range(5):
        await mine.bind(who)
        assert await mine.may_create(who)
        await other.unbind(who)
        await asyncio.sleep(permissions.FRESH)
        assert not await mine.may_create(who)


@pytest.mark.usefixtures("for_ever")
async def test_a_refusal_counts_only_if_the_log_says_so_now(two: tuple[Process, Process], who: str) -> None:
    mine, other = two
    await mine.bind(who)
    assert await mine.may_create(who)
    for _ in range(5):
        await other.unbind(who)
        assert not await other.may_create(who)
        await other.bind(who)
        assert await mine.may_create(who)


async def test_who_cannot_read_the_log_accepts_nothing_any_more(
    two: tuple[Process, Process], who: str, monkeypatch: pytest.MonkeyPatch, for_ever: None
) -> None:
    """What was known counts for FRESH seconds, and nobody is refused for what may not be true any more."""
    mine, other = two
    await mine.bind(who)
    assert await mine.may_create(who)
    await mine.stop_reading()
    await other.unbind(who)
    assert await mine.may_create(who), "it cannot know"
    monkeypatch.setattr(permissions, "PATIENCE", 0.05)
    with pytest.raises(Unavailable):
        await mine.may_create("oidc:https://issuer.example#nobody")
    monkeypatch.setattr(permissions, "FRESH", 0.0)
    with pytest.raises(Unavailable):
        await mine.may_create(who)


@pytest.mark.usefixtures("for_ever")
async def test_what_gives_access_is_asked_each_time(two: tuple[Process, Process], who: str) -> None:
    mine, other = two
    await mine.bind(who)
    assert await mine.may_create(who)
    assert BIND.verb.permission in GIVES_ACCESS
    args: Args = {"project": "shared", "principal": who, "role": "admin"}
    for number in range(1, 4):
        await mine.permissions.check(BIND, PROJECT, args, Caller(actor=who))
        assert mine.store.asked == 1 + number
    await other.unbind(who)
    with pytest.raises(Rejected):
        await mine.permissions.check(BIND, PROJECT, args, Caller(actor=who))


async def test_the_log_is_asked_again_before_it_is_too_late(
    two: tuple[Process, Process], who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the commands, which do not wait; once at a time. A failure is seen by who needs the answer."""
    mine, _ = two
    monkeypatch.setattr(permissions, "FRESH", 1e9)
    monkeypatch.setattr(permissions, "RENEWED", 1e9)
    await mine.bind(who)
    assert await mine.may_create(who)
    monkeypatch.setattr(permissions, "RENEWED", -1.0)
    assert await mine.may_create(who)
    assert await mine.may_create(who)
    assert mine.store.asked == 1, "none of them has waited"
    await eventually(lambda: mine.store.asked == 2, "asked once for both")
    mine.store.away = True

    async def again() -> bool:
        assert await mine.may_create(who)
        return mine.store.asked >= 5

    await eventually(again, "asked again, after failures too")
    monkeypatch.setattr(permissions, "FRESH", 0.0)
    with pytest.raises(Unavailable):
        await mine.may_create(who)
