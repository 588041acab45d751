"""Group commit: many single appends at once, stored together, each with its own outcome."""

import asyncio

import pytest
from nats.aio.client import Client

from eventstore.log.envelope import Recorded, Ref
from eventstore.log.group import ALONE, FEW, MOST_BYTES
from eventstore.log.store import Change, Conflict, EventStore, Tip, TooLarge
from runtime import subjects
from tests.eventstore.log import CONTEXT, created, ref, renamed

MANY = ALONE + FEW + 3
"""A group of so many is a batch."""


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
    assert sum("Nats-Batch-Id" in (message.headers or {}) for message in raw) > FEW


async def test_a_few_are_sent_one_by_one(store: EventStore, nc: Client) -> None:
    """The server takes longer for a batch."""
    refs = [ref() for _ in range(ALONE + FEW)]
    stored = await asyncio.gather(*(store.append([Change(Tip(r), [created(r)])], CONTEXT) for r in refs))
    raw = [await nc.jetstream().get_last_msg(subjects.EVENTS, r.subject) for r in refs]
    assert not [message for message in raw if "Nats-Batch-Id" in (message.headers or {})]
    for target, found in zip(refs, stored, strict=True):
        assert [one.position for one in await store.history(target)] == [one.position for one in found]


async def test_each_of_a_few_has_its_own_outcome(store: EventStore) -> None:
    refs = [ref() for _ in range(ALONE + FEW)]
    late = refs[::4]
    for target in late:
        await store.append([Change(Tip(target), [created(target)])], CONTEXT)
    appends = (store.append([Change(Tip(r), [renamed("one")])], CONTEXT) for r in refs)
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [isinstance(found, Conflict) for found in outcomes] == [target in late for target in refs]
    assert [len(await store.history(target)) for target in refs] == [1] * len(refs)


async def test_a_change_of_several_events_stays_whole_among_a_few(store: EventStore) -> None:
    pairs = [(ref(), ref()) for _ in range(3)]
    single = [ref() for _ in range(3)]
    changes = [[Change(Tip(half), [created(half)]) for half in pair] for pair in pairs]
    changes += [[Change(Tip(target), [created(target)])] for target in single]
    stored = await asyncio.gather(*(store.append(each, CONTEXT) for each in changes))
    for [first, second] in stored[:3]:
        assert second.position == first.position + 1


async def test_a_change_of_two_aggregates_stays_whole_in_company(store: EventStore, nc: Client) -> None:
    """Every tenth pair has one half that has moved on: neither half is stored, and none of its company is refused."""
    pairs = [(ref(), ref()) for _ in range(MANY)]
    late = pairs[::10]
    for _, half in late:
        await store.append([Change(Tip(half), [created(half)])], CONTEXT)

    async def outcome(pair: tuple[Ref, Ref]) -> list[Recorded] | Conflict:
        try:
            return await store.append([Change(Tip(half), [renamed("one"), renamed("two")]) for half in pair], CONTEXT)
        except Conflict as error:
            return error

    outcomes = dict(zip(pairs, await asyncio.gather(*(outcome(pair) for pair in pairs)), strict=True))
    for pair, found in outcomes.items():
        one, other = [await store.history(half) for half in pair]
        if pair in late:
            assert isinstance(found, Conflict)
            assert (found.subject, len(one), len(other)) == (pair[1].subject, 0, 1)
        else:
            assert isinstance(found, list)
            first = found[0].position
            assert [r.position for r in found] == [r.position for r in one + other] == list(range(first, first + 4))
    whole = [pair for pair in pairs if pair not in late]
    raw = [await nc.jetstream().get_last_msg(subjects.EVENTS, one.subject) for one, _ in whole]
    assert any(int((message.headers or {})["Nats-Batch-Sequence"]) > 4 for message in raw)


async def test_what_is_too_large_in_company_is_refused_alone(
    store: EventStore, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 32 * 1024
    assert limit < MOST_BYTES, "else it would have no company"
    monkeypatch.setattr(nc, "_max_payload", limit)
    refs = [ref() for _ in range(MANY)]
    names = {target: "x" * (limit if target in refs[::20] else 1) for target in refs}

    async def outcome(target: Ref) -> bool:
        try:
            await store.append([Change(Tip(target), [renamed(names[target])])], CONTEXT)
        except TooLarge:
            return False
        return True

    outcomes = await asyncio.gather(*(outcome(target) for target in refs))
    assert [not stored for stored in outcomes] == [target in refs[::20] for target in refs]


async def test_a_conflict_in_company_is_its_own(store: EventStore) -> None:
    """Every tenth append builds on a tip that has moved on. It is refused, and none of its company is."""
    refs = [ref() for _ in range(MANY)]
    late = refs[::10]
    for target in late:
        await store.append([Change(Tip(target), [created(target)])], CONTEXT)

    async def outcome(target: Ref) -> list[Recorded] | Conflict:
        try:
            return await store.append([Change(Tip(target), [renamed("rival")])], CONTEXT)
        except Conflict as error:
            return error

    outcomes = await asyncio.gather(*(outcome(target) for target in refs))
    refused = [target for target, found in zip(refs, outcomes, strict=True) if isinstance(found, Conflict)]
    assert refused == late
    for target in refs:
        assert len(await store.history(target)) == 1


async def test_company_of_what_stands_there_already_is_not_taken_for_stored(store: EventStore) -> None:
    """A client that lost the answer sends an event again, and it comes to be the first of a group of new ones."""
    repeated, refs = ref(), [ref() for _ in range(MANY)]

    async def position(target: Ref) -> int | None:
        try:
            [recorded] = await store.append([Change(Tip(target), [created(target)])], CONTEXT)
        except Conflict:
            return None
        return recorded.position

    assert await position(repeated)
    sent = [*refs[:ALONE], repeated, *refs[ALONE:]]
    told = dict(zip(sent, await asyncio.gather(*(position(target) for target in sent)), strict=True))
    assert told.pop(repeated) is None
    for target in refs:
        assert [recorded.position for recorded in await store.history(target)] == [told[target]]
    assert len(await store.history(repeated)) == 1


async def test_who_waits_for_a_batch_goes_on_when_it_is_stored(store: EventStore) -> None:
    await store.batch(60)  # there is none
    refs = [ref() for _ in range(MANY)]
    appends = [asyncio.create_task(store.append([Change(Tip(r), [created(r)])], CONTEXT)) for r in refs]
    for _ in range(3):
        await asyncio.sleep(0)
    await store.batch(60)
    assert sum(append.done() for append in appends) > 0
    await asyncio.gather(*appends)
    async with asyncio.timeout(30):
        await store.batch(60)
