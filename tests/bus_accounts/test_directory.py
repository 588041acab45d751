"""A gateway reads of the log only what says who may do what, also where it may create no consumer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from domain.user import UserCreated, UserDisabled
from eventstore.log.envelope import Context, Ref
from eventstore.log.judge import Tip
from eventstore.log.store import Change, EventStore
from gateway.access.directory import Directory
from runtime import subjects
from runtime.bus import ordered, streams
from runtime.tasks.tasks import end
from tests.bus_accounts.conftest import Guarded
from tests.event_keys import KEYS
from tests.handlers.pairs import done
from tests.waiting import eventually

CONTEXT = Context(actor="token:tests")
#: Events of VMs, between those of users.
OTHERS = 3000


@asynccontextmanager
async def running(guarded: Guarded) -> AsyncIterator[Directory]:
    nc = guarded.connections["gateway"]
    directory = Directory(nc, EventStore(nc, KEYS), 5.0, asyncio.Event())
    task = asyncio.create_task(directory.run())
    try:
        yield directory
    finally:
        await end([task])


async def add_others(guarded: Guarded, count: int) -> None:
    js = guarded.connections["handlers"].jetstream()
    for begin in range(0, count, 500):
        numbers = range(begin, min(begin + 500, count))
        await asyncio.gather(*(js.publish(f"nebula.events.web.vm.vm-{number % 300}", b"{}") for number in numbers))


async def create(store: EventStore, user: str) -> Tip:
    event = UserCreated(**done(), user=user, name=user)
    (stored,) = await store.append([Change(Tip(Ref("system", "user", user)), [event])], CONTEXT)
    return Tip(stored.ref).after(stored)


async def test_events_of_other_kinds_are_not_read(guarded: Guarded) -> None:
    handlers = EventStore(guarded.connections["handlers"], KEYS)
    ada = await create(handlers, "ada")
    await add_others(guarded, OTHERS)
    nc = guarded.connections["gateway"]
    before = nc.stats["in_msgs"]
    async with running(guarded) as directory:
        await eventually(lambda: directory.behind is not None, "it has read all accounts")
        assert nc.stats["in_msgs"] - before < OTHERS / 10
        assert directory.account("user:ada") is not None
        # Later events come, too.
        await create(handlers, "bob")
        await handlers.append([Change(ada, [UserDisabled(**done())])], CONTEXT)
        await eventually(lambda: directory.account("user:bob") is not None, "a later user is known")
        await eventually(lambda: disabled(directory, "user:ada"), "a later change of an earlier user is known")
        directory.judge()


def disabled(directory: Directory, principal: str) -> bool:
    found = directory.account(principal)
    return found is not None and found.disabled


async def test_a_log_that_was_replaced_is_read_again(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "SURE", 0.5)
    handlers = EventStore(guarded.connections["handlers"], KEYS)
    await add_others(guarded, 10)
    await create(handlers, "ada")
    async with running(guarded) as directory:
        await eventually(lambda: directory.account("user:ada") is not None, "a user is known")
        maintenance = guarded.connections["maintenance"].jetstream()
        await maintenance.delete_stream(subjects.EVENTS)
        await streams.ensure_all(guarded.connections["handlers"].jetstream(), 1)
        await create(EventStore(guarded.connections["handlers"], KEYS), "bob")
        await eventually(lambda: directory.account("user:bob") is not None, "the user of the new log is known")
        assert directory.account("user:ada") is None, "nothing of the old log is valid"
        await eventually(lambda: directory.behind is not None, "it is complete again")
