"""Append, load, history, read; and what the server refuses."""

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client

from domain.named import Named
from eventstore.log.envelope import Context, Recorded, Ref, seal
from eventstore.log.store import PAGE, Change, Conflict, EventStore, Tampered, Tip, TooLarge, Unavailable
from runtime import subjects
from runtime.bus.streams import ensure_all
from runtime.local.servers import NatsServer, start_nats
from tests.eventstore.log import (
    AT,
    CONTEXT,
    append,
    broken_link,
    connection,
    created,
    filled,
    load,
    name_of,
    noted,
    ref,
    renamed,
    some_id,
)


def same(one: Recorded, other: Recorded) -> bool:
    """`stored_at` aside: an appender does not learn the server's clock."""
    return (one.position, one.subject, dict(one.headers), one.body) == (
        other.position,
        other.subject,
        dict(other.headers),
        other.body,
    )


async def test_what_is_appended_is_loaded(store: EventStore) -> None:
    target = ref()
    recorded = await store.append([Change(Tip(target), [created(target), renamed("two")])], CONTEXT)
    assert [r.version for r in recorded] == [1, 2]
    assert recorded[0].position + 1 == recorded[1].position
    made = created(target).model_copy(update={"created_by": CONTEXT.actor})
    assert [r.event for r in recorded] == [made, renamed("two")]

    state, tip = await load(store, target)
    assert isinstance(state, Named)
    assert state.name == "two"
    assert (tip.version, tip.position, tip.digest) == (2, recorded[1].position, recorded[1].digest)
    history = await store.history(target)
    assert all(same(one, other) for one, other in zip(history, recorded, strict=True))


async def test_nothing_is_loaded_of_what_never_was(store: EventStore) -> None:
    target = ref()
    assert await load(store, target) == (None, Tip(target))
    assert await store.history(target) == []
    assert await store.append([], CONTEXT) == []
    assert await store.append([Change(Tip(target), [])], CONTEXT) == []


async def test_an_aggregate_is_exactly_its_subject(store: EventStore) -> None:
    one = ref()
    others = [ref(one.project), Ref(some_id(), "tag", one.id), ref(one.project, one.id + "x")]
    for target in (one, *others):
        await append(store, Tip(target), noted(target.subject))
    for target in (one, *others):
        assert [name_of(r) for r in await store.history(target)] == [target.subject]


async def test_histories_longer_than_a_page(store: EventStore) -> None:
    count = 2 * PAGE + 1
    target = await filled(store, count)
    history = await store.history(target)
    assert [name_of(r) for r in history] == [str(n) for n in range(1, count + 1)]
    assert broken_link(history) is None
    until = history[PAGE].position
    assert await store.history(target, at=until) == history[: PAGE + 1]
    assert await store.history(target, at=history[0].position - 1) == []
    assert (await load(store, target))[1].version == count


async def test_a_history_ends_at_a_time(store: EventStore) -> None:
    target = ref()
    tip = Tip(target)
    for second in range(3):
        event = renamed(str(second)).model_copy(update={"at": AT + timedelta(seconds=second)})
        tip = await append(store, tip, event)
    for end, names in ((-0.5, []), (0, ["0"]), (1.5, ["0", "1"]), (9, ["0", "1", "2"])):
        history = await store.history(target, at=AT + timedelta(seconds=end))
        assert [name_of(r) for r in history] == names
    loaded = await store.load(target, lambda _, event: event, at=AT + timedelta(seconds=1))
    assert (loaded.tip.version, loaded.state) == (2, history[1].event)


@pytest.mark.parametrize(("version", "previous"), [("4", "right"), ("3", "0" * 64), ("nonsense", "right"), ("", "")])
async def test_a_history_is_verified_where_asked(store: EventStore, nc: Client, version: str, previous: str) -> None:
    target = await filled(store, 2)
    await store.history(target, verified=True)
    _, tip = await load(store, target)
    headers, body = seal(target, 3, tip.digest, renamed("three"), CONTEXT)
    headers["ce-aggregateversion"] = version
    if previous != "right":
        headers["ce-prevhash"] = previous
    forged = await nc.jetstream().publish(
        target.subject, body, headers={name: value for name, value in headers.items() if value}
    )
    assert len(await store.history(target)) == 2, "nobody else takes it in"
    for read in (store.history(target, verified=True), store.load(target, lambda _, event: event, verified=True)):
        with pytest.raises(Tampered) as raised:
            await read
        assert raised.value.position == forged.seq


async def test_the_log_is_read_in_order_from_anywhere(store: EventStore) -> None:
    project = some_id()
    for _ in range(3):
        await filled(store, PAGE, project)
    filter_ = subjects.events(project)
    found: list[Recorded] = []
    while page := await store.read(found[-1].position if found else 0, filter_):
        assert len(page) <= PAGE
        found += page
    assert len(found) == 3 * PAGE
    assert [r.position for r in found] == sorted({r.position for r in found})
    assert await store.read(found[9].position, filter_, 5) == found[10:15]
    assert await store.read(found[-1].position, filter_) == []
    assert await store.last_position() == found[-1].position
    assert await store.read(10**9) == []


# ── conflicts ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_append_builds_on_the_newest_event_only(store: EventStore) -> None:
    target = ref()
    first = await append(store, Tip(target), created(target))
    await append(store, first, renamed("two"))
    for stale in (Tip(target), first, Tip(target, 2, first.position + 10_000)):
        with pytest.raises(Conflict) as raised:
            await append(store, stale, renamed("never"))
        assert raised.value.subject == target.subject
    assert [name_of(r) for r in await store.history(target)] == ["one", "two"]


async def test_the_expectation_is_about_the_aggregate_not_the_log(store: EventStore) -> None:
    target, other = ref(), ref()
    tip = await append(store, Tip(target), created(target))
    await append(store, Tip(other), created(other))
    assert (await append(store, tip, renamed("two"))).version == 2


async def test_of_many_writers_one_is_first(store: EventStore) -> None:
    target = ref()

    async def write(n: int) -> bool:
        try:
            await append(store, Tip(target), created(target, str(n)))
        except Conflict:
            return False
        return True

    won = await asyncio.gather(*(write(n) for n in range(20)))
    assert [name_of(r) for r in await store.history(target)] == [str(won.index(True))]
    assert sum(won) == 1


async def test_several_aggregates_stand_or_fall_together(store: EventStore) -> None:
    one, two, three = ref(), ref(), ref()
    tips = [await append(store, Tip(target), created(target)) for target in (one, two, three)]
    changes = [Change(tip, [renamed("a"), renamed("b")]) for tip in tips]
    recorded = await store.append(changes, CONTEXT)
    assert [r.position for r in recorded] == [recorded[0].position + n for n in range(6)]
    for target in (one, two, three):
        assert [name_of(r) for r in await store.history(target)] == ["one", "a", "b"]
        assert broken_link(await store.history(target)) is None


@pytest.mark.parametrize("moved", [0, 1, 2])
async def test_a_conflict_in_a_batch_names_who_moved_and_stores_nothing(store: EventStore, moved: int) -> None:
    targets = [ref(), ref(), ref()]
    tips = [await append(store, Tip(target), created(target)) for target in targets]
    await append(store, tips[moved], renamed("rival"))
    with pytest.raises(Conflict) as raised:
        await store.append([Change(tip, [renamed("x"), renamed("y")]) for tip in tips], CONTEXT)
    assert raised.value.subject == targets[moved].subject
    for n, target in enumerate(targets):
        assert [name_of(r) for r in await store.history(target)] == ["one", "rival"][: 2 if n == moved else 1]


async def test_who_is_not_alone_is_named(store: EventStore) -> None:
    one, other = ref(), ref()
    await append(store, Tip(elsewhere := ref(id_=other.id)), created(elsewhere))
    alone = subjects.events(kind=other.kind, id_=other.id)
    with pytest.raises(Conflict) as raised:
        await store.append([Change(Tip(one), [created(one)]), Change(Tip(other), [created(other)], alone)], CONTEXT)
    assert raised.value.subject == other.subject
    assert await store.history(one) == await store.history(other) == []


async def test_an_id_that_another_project_has_is_not_taken_for_a_repeat(store: EventStore) -> None:
    """The server acknowledges the other project's event: the id of both events is the same."""
    target = ref()
    await append(store, Tip(elsewhere := ref(id_=target.id)), created(elsewhere))
    with pytest.raises(Conflict):
        await append(store, Tip(target), created(target))
    assert await store.history(target) == []


async def test_many_batches_at_once_over_the_same_books(store: EventStore) -> None:
    """As placement does it: one event of a VM's and one of its node's, and never a promise without a VM."""
    books = ref()
    vms = [ref() for _ in range(12)]
    await append(store, Tip(books), created(books))

    async def place(n: int) -> None:
        while True:
            _, tip = await load(store, books)
            try:
                await store.append([Change(Tip(vms[n]), [renamed(f"{n}")]), Change(tip, [renamed(f"{n}")])], CONTEXT)
            except Conflict as error:
                assert error.subject == books.subject
            else:
                return

    await asyncio.gather(*(place(n) for n in range(len(vms))))
    promised = [name_of(r) for r in await store.history(books)][1:]
    assert sorted(promised, key=int) == [str(n) for n in range(12)]
    assert broken_link(await store.history(books)) is None


async def test_more_batches_at_once_than_the_server_holds_open(store: EventStore) -> None:
    """It holds 50 for a stream, and refuses the others for the moment."""
    targets = [ref() for _ in range(80)]
    await asyncio.gather(*(store.append([Change(Tip(t), [created(t), renamed("two")])], CONTEXT) for t in targets))
    for target in targets:
        assert len(await store.history(target)) == 2


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_event_too_big_is_refused_and_leaves_nothing(store: EventStore) -> None:
    target = ref()
    for size in (600_000, 2_000_000):
        with pytest.raises(TooLarge):
            await append(store, Tip(target), renamed("x" * size))
        with pytest.raises(TooLarge):
            await append(store, Tip(target), renamed("small"), renamed("x" * size))
    assert await store.history(target) == []


async def test_a_log_that_is_not_there_says_so(nc: Client, servers_home: Path) -> None:
    other = EventStore(nc, stream="NO_SUCH_LOG", timeout=0.5)
    for attempt in (other.history(ref()), other.read(0), other.last_position(), load(other, ref())):
        with pytest.raises(Unavailable):
            await attempt


async def test_a_server_that_is_away_is_unavailable_and_then_is_not(tmp_path: Path) -> None:
    server: NatsServer = await start_nats(tmp_path)
    async with connection(server.url) as client:
        await ensure_all(client.jetstream(), 1)
        store, target = EventStore(client, timeout=0.5), ref()
        tip = await append(store, Tip(target), created(target))
        await server.kill()
        with pytest.raises(Unavailable):
            await append(store, tip, renamed("two"))
        with pytest.raises(Unavailable):
            await load(store, target)
        server = await start_nats(tmp_path, port=server.port)
        patient = EventStore(client, timeout=20)
        with contextlib.suppress(
            Conflict
        ):  # "unavailable" is no promise: what was sent may arrive when the line is back
            await append(patient, tip, renamed("two"))
        assert [name_of(r) for r in await patient.history(target)] == ["one", "two"]
    await server.stop()


async def test_who_and_why_is_recorded(store: EventStore) -> None:
    target = ref()
    context = Context("alice", "token:1", "request-1", None, "cause-1", "00-abc-def-01")
    await append(store, Tip(target), created(target), context=context)
    recorded = (await store.history(target))[0]
    assert recorded.context == Context("alice", "token:1", "request-1", "o", "cause-1", "00-abc-def-01")
    assert recorded.ref == target
    assert recorded.version == 1


async def test_an_append_may_depend_on_others(store: EventStore) -> None:
    """On their tips, in the same append; one that moved on refuses all of it, and one that never was counts too."""
    target, tag, never = ref(), Ref("system", "tag", some_id()), Ref("system", "tag", some_id())
    tip = await append(store, Tip(tag), created(tag))
    stored = await store.append([Change(Tip(target), [created(target)])], CONTEXT, unchanged=[tip, Tip(never)])
    assert [r.type for r in stored[1:]] == ["nebula.log.ReferenceChecked"] * 2
    assert [(r.event.id, r.event.position) for r in stored[1:]] == [(tag.id, tip.position), (never.id, 0)]  # type: ignore[attr-defined]
    state, own = await load(store, target)
    assert (state.name if state else None, own.version) == ("one", 3)
    assert broken_link(await store.history(target)) is None

    await append(store, tip, renamed("two"))
    for events in ([renamed("a")], [renamed("a"), renamed("b"), renamed("c")]):
        with pytest.raises(Conflict):
            await store.append([Change(own, events)], CONTEXT, unchanged=[Tip(never), tip])
    assert await load(store, target) == (state, own)


async def test_events_that_are_there_anyway_carry_what_is_expected_of_others(store: EventStore) -> None:
    target, tag = ref(), Ref("system", "tag", some_id())
    tip = await append(store, Tip(tag), created(tag))
    both = [created(target), renamed("two")]
    assert len(await store.append([Change(Tip(target), both)], CONTEXT, unchanged=[tip])) == 2


async def test_appends_in_company_may_depend_on_each_other(store: EventStore) -> None:
    """Some write what others expect to stand still: all are answered, and nobody wins against the order of the log."""
    tags = [Ref("system", "tag", some_id()) for _ in range(20)]
    tips = [await append(store, Tip(tag), noted("one")) for tag in tags]

    async def depends(tip: Tip) -> bool:
        target = ref()
        with contextlib.suppress(Conflict):
            [first, *_] = await store.append([Change(Tip(target), [created(target)])], CONTEXT, unchanged=[tip])
            moved = await store.history(tip.ref)
            return first.position < moved[1].position if len(moved) > 1 else True
        return len(await store.history(tip.ref)) > 1

    async def moves(tip: Tip) -> bool:
        await append(store, tip, noted("two"))
        return True

    async with asyncio.timeout(4):  # less than the patience of an append
        assert all(await asyncio.gather(*(do(tip) for tip in tips for do in (moves, depends, depends))))
