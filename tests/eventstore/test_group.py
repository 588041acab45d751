"""Group commit: many single appends at once, stored together, each with its own outcome."""

import asyncio

from nats.aio.client import Client

from eventstore.envelope import Recorded
from eventstore.group import ALONE
from eventstore.store import Change, Conflict, EventStore, Tip
from runtime import subjects
from tests.eventstore.log import CONTEXT, created, everything, ref, renamed

MANY = 20 * ALONE


async def test_many_at_once_are_stored_once_each(store: EventStore) -> None:
    refs = [ref() for _ in range(MANY)]
    stored = await asyncio.gather(*(store.append([Change(Tip(r), [created(r)])], CONTEXT) for r in refs))
    positions = [recorded.position for [recorded] in stored]
    assert len(set(positions)) == MANY
    for target, [recorded] in zip(refs, stored, strict=True):
        [found] = await store.history(target)
        assert (found.position, found.digest) == (recorded.position, recorded.digest)


async def test_they_do_go_in_company(store: EventStore, nc: Client) -> None:
    """Else this measures nothing: the server keeps the mark of the batch that a message came in."""
    refs = [ref() for _ in range(MANY)]
    await asyncio.gather(*(store.append([Change(Tip(r), [created(r)])], CONTEXT) for r in refs))
    raw = [await nc.jetstream().get_last_msg(subjects.EVENTS, r.subject) for r in refs]
    assert sum("Nats-Batch-Id" in (message.headers or {}) for message in raw) > ALONE


async def test_a_conflict_in_company_is_its_own(store: EventStore) -> None:
    """Of each aggregate two first events race; one wins, whoever else is in the batch."""
    refs = [ref() for _ in range(MANY)]

    async def race(change: Change) -> list[Recorded] | Conflict:
        try:
            return await store.append([change], CONTEXT)
        except Conflict as error:
            return error

    changes = [Change(Tip(r), [event]) for r in refs for event in (created(r), renamed("rival"))]
    outcomes = await asyncio.gather(*(race(change) for change in changes))
    for change, first, second in zip(changes[::2], outcomes[::2], outcomes[1::2], strict=True):
        won = [outcome for outcome in (first, second) if not isinstance(outcome, Conflict)]
        assert len(won) == 1
        [found] = await store.history(change.tip.ref)
        assert found.id == won[0][0].id
    assert len({recorded.position for recorded in await everything(store)}) == len(await everything(store))
