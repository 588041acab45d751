"""Load, decide, append; and what is known already saves the load."""

import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from domain import tag as tags
from domain.base import Event
from domain.project import ChangeProject, CreateProject, Project, decide, evolve
from domain.tag import CreateTag, RenameTag
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import Conflict, EventStore, Loaded, Tip
from handlers.apply import Applied, apply, now
from runtime.bus.streams import ensure_all
from runtime.local.servers import start_nats
from tests.eventstore.log import connection

CONTEXT = Context(actor="tester")


class Counted(EventStore):
    """Counts its loads."""

    loads = 0

    async def load(self, ref: Ref, evolve: Callable[[Any, Event], Any], **options: Any) -> Loaded[Any]:
        self.loads += 1
        return await super().load(ref, evolve, **options)


@pytest.fixture(scope="module")
async def store(servers_home: Path) -> AsyncIterator[Counted]:
    server = await start_nats(servers_home / "apply")
    async with connection(server.url) as nc:
        await ensure_all(nc.jetstream(), 1)
        yield Counted(nc)
    await server.stop()


async def made(store: EventStore) -> tuple[Ref, Loaded[Project]]:
    """A project, and what is known of it."""
    id_ = f"p-{uuid.uuid4().hex[:8]}"
    ref = Ref(id_, "project", id_)
    command = CreateProject(at=now(), operation=str(uuid.uuid4()), fingerprint="f", project=id_, name="one")
    created = await apply(store, ref, decide, evolve, command, CONTEXT, expect_new=True)
    return ref, Loaded(created.state, created.tip)


async def rename(store: EventStore, ref: Ref, name: str, known: Loaded[Project] | None = None) -> Applied[Project]:
    command = ChangeProject(at=now(), operation=str(uuid.uuid4()), fingerprint="f", project=ref.id, name=name)
    return await apply(store, ref, decide, evolve, command, CONTEXT, known=known)


def name_of(found: Loaded[Project] | Applied[Project]) -> str:
    assert found.state is not None
    return found.state.name


async def test_what_is_known_saves_the_load(store: Counted) -> None:
    ref, known = await made(store)
    before = store.loads
    changed = await rename(store, ref, "two", known)
    assert store.loads == before
    assert (name_of(changed), changed.tip.version) == ("two", 2)
    found = await store.load(ref, evolve, verified=True)
    assert (name_of(found), found.tip) == ("two", changed.tip)


async def test_what_is_known_and_behind_is_read_anew(store: Counted) -> None:
    ref, known = await made(store)
    await rename(store, ref, "two")
    before = store.loads
    changed = await rename(store, ref, "three", known)
    assert store.loads == before + 1
    assert (name_of(changed), changed.tip.version) == ("three", 3)
    found = await store.load(ref, evolve, verified=True)
    assert (name_of(found), found.tip) == ("three", changed.tip)


async def test_nothing_known_is_read_first(store: Counted) -> None:
    ref, _ = await made(store)
    before = store.loads
    assert (await rename(store, ref, "two")).tip.version == 2
    assert store.loads == before + 1


async def retag(store: EventStore, ref: Ref, tags: tuple[str, ...], **given: Any) -> Applied[Project]:
    command = ChangeProject(at=now(), operation=str(uuid.uuid4()), fingerprint="f", project=ref.id, tags=tags)
    return await apply(store, ref, decide, evolve, command, CONTEXT, **given)


async def tag(store: EventStore) -> Tip:
    id_ = f"t-{uuid.uuid4().hex[:8]}"
    ref = Ref("system", "tag", id_)
    command = CreateTag(at=now(), operation=str(uuid.uuid4()), fingerprint="f", tag=id_, name="one")
    return (await apply(store, ref, tags.decide, tags.evolve, command, CONTEXT)).tip


async def renamed_tag(store: EventStore, ref: Ref) -> Tip:
    command = RenameTag(at=now(), operation=str(uuid.uuid4()), fingerprint="f", tag=ref.id, name="two")
    return (await apply(store, ref, tags.decide, tags.evolve, command, CONTEXT)).tip


async def test_what_is_referred_to_anew_may_not_have_moved_on(store: Counted) -> None:
    ref, known = await made(store)
    one, two = await tag(store), await tag(store)
    newer = await renamed_tag(store, two.ref)
    both = (one.ref.id, two.ref.id)
    for basis in ({one.ref: one, two.ref: two}, {one.ref: one}):
        with pytest.raises(Conflict):
            await retag(store, ref, both, basis=basis)
    assert (await store.load(ref, evolve)).tip == known.tip, "nothing is stored"
    changed = await retag(store, ref, both, basis={one.ref: one, two.ref: newer})
    assert changed.state is not None
    assert (changed.state.tags, changed.tip.version) == (both, 4), "an event, and what was checked of two tags"
    await renamed_tag(store, two.ref)
    kept = await retag(store, ref, both[::-1], basis={})
    assert kept.tip.version == 5, "what it refers to already cannot be deleted"


async def test_what_others_have_to_be_like_is_looked_at_anew(store: Counted) -> None:
    ref, _ = await made(store)
    old = await tag(store)
    looks: list[Tip] = []

    async def related(state: Any, events: Any) -> list[Tip]:
        looks.append(old if not looks else await renamed_tag(store, old.ref))
        return [looks[-1]]

    await renamed_tag(store, old.ref)
    changed = await retag(store, ref, (), related=related)
    assert len(looks) == 2
    assert changed.tip.version == 3


async def test_events_of_an_aggregate_never_go_back_in_time(store: Counted) -> None:
    """Whoever decided before may have had a clock ahead of this one."""
    ref, _ = await made(store)
    ahead = now() + timedelta(hours=1)
    command = ChangeProject(at=ahead, operation=str(uuid.uuid4()), fingerprint="f", project=ref.id, name="two")
    await apply(store, ref, decide, evolve, command, CONTEXT)
    await rename(store, ref, "three")
    times = [recorded.time for recorded in await store.history(ref)]
    assert times == sorted(times)
    assert times[-1] == ahead
