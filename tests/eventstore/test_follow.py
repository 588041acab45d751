"""Following the log: everything behind a position, once, in order, whatever happens to the server meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from eventstore.log.envelope import Recorded
from eventstore.log.follow import OtherStream, follow, pushed
from eventstore.log.store import EventStore, Tip
from runtime import subjects
from runtime.bus import ordered
from runtime.bus.streams import ensure_all
from runtime.local.servers import NatsServer, start_nats
from tests.eventstore.log import (
    Proxy,
    append,
    connection,
    created,
    everything,
    filled,
    ref,
    renamed,
    some_id,
)
from tests.waiting import eventually


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that went away is noticed soon."""
    monkeypatch.setattr(ordered, "HEARTBEAT", 0.2)
    monkeypatch.setattr(ordered, "_FIRST_WAIT", 0.5)
    monkeypatch.setattr(ordered, "SURE", 0.3)


async def take(nc: Client, after: int, count: int, filters: list[str] | None = None) -> list[Recorded]:
    """The next so many events behind a position."""
    found: list[Recorded] = []
    async with aclosing(follow(nc, after, filters, event_keys=None)) as feed:
        async for batch in feed:
            assert 0 < len(batch) <= ordered.MOST
            found += batch
            if len(found) >= count:
                return found
    raise AssertionError("it ended")


@pytest.fixture
async def project(store: EventStore) -> str:
    """Three aggregates of 5 events each."""
    made = some_id()
    for _ in range(3):
        await filled(store, 5, made)
    return made


async def test_from_the_beginning(nc: Client, store: EventStore, project: str) -> None:
    log = await everything(store)
    assert await take(nc, 0, len(log)) == log


async def test_from_the_middle(nc: Client, store: EventStore, project: str) -> None:
    log = await everything(store)
    after = log[-8].position
    assert await take(nc, after, 7) == log[-7:]


async def test_with_filters(nc: Client, store: EventStore, project: str) -> None:
    other = await filled(store, 4)
    mine = await store.read(0, subjects.events(project))
    assert await take(nc, 0, 15, [subjects.events(project)]) == mine
    both = await take(nc, mine[2].position, 16, [subjects.events(project), other.subject])
    assert both == [*mine[3:], *await store.history(other)]


async def test_no_filter_at_all_is_not_everything(nc: Client) -> None:
    """Who may see nothing must not be shown all."""
    with pytest.raises(ValueError, match="at least one"):
        await anext(follow(nc, 0, [], event_keys=None))


async def test_more_than_a_batch_and_then_what_comes(nc: Client, store: EventStore) -> None:
    target = await filled(store, 3 * ordered.MOST + 7)
    history = await store.history(target)
    feed = follow(nc, 0, [target.subject], event_keys=None)
    found: list[Recorded] = []
    while len(found) < len(history):
        found += await anext(feed)
    assert found == history
    tip = Tip(target, history[-1].version, history[-1].position, history[-1].digest)
    for name in ("x", "y"):
        tip = await append(store, tip, renamed(name))
        assert [r.position for r in await anext(feed)] == [tip.position]
    await feed.aclose()


async def test_a_feed_that_is_closed_leaves_nothing_behind(nc: Client, store: EventStore, project: str) -> None:
    before = len(nc._subs)
    for _ in range(3):
        await take(nc, 0, 15, [subjects.events(project)])

    async def nothing_left() -> bool:
        info = await nc.jetstream().stream_info(subjects.EVENTS)
        return info.state.consumer_count == 0 and len(nc._subs) == before

    await eventually(nothing_left, "consumer and subscription are gone")


async def test_a_feed_in_a_busy_log_can_be_cancelled(nc: Client, store: EventStore) -> None:
    """Once is enough, although a message comes at the same moment."""
    target = await filled(store, 3000)

    async def read() -> None:
        async for _ in follow(nc, 0, [target.subject], event_keys=None):
            pass

    for n in range(40):
        task = asyncio.create_task(read())
        await asyncio.sleep(0.0005 * n)
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()


class Follower:
    """Collects in a task of its own."""

    def __init__(self, nc: Client) -> None:
        self.found: list[Recorded] = []
        self._task = asyncio.create_task(self._collect(nc))

    async def _collect(self, nc: Client) -> None:
        async for batch in follow(nc, 0, event_keys=None):
            self.found += batch

    async def caught_up(self, position: int) -> None:
        async def check() -> bool:
            assert not self._task.done()
            return bool(self.found) and self.found[-1].position >= position

        await eventually(check, f"followed to {position}")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.usefixtures("impatient")
async def test_through_restarts_without_gap_or_repeat(tmp_path: Path) -> None:
    server = await start_nats(tmp_path)
    async with connection(server.url) as reader, connection(server.url) as writer:
        await ensure_all(writer.jetstream(), 1)
        store = EventStore(writer, timeout=20)
        follower = Follower(reader)
        tip = await append(store, Tip(target := ref()), created(target))
        for restart in range(4):
            await follower.caught_up(tip.position)
            appending = asyncio.create_task(grow(store, tip, 30))
            await (server.kill() if restart % 2 else server.stop())
            server = await start_nats(tmp_path, port=server.port)
            tip = await appending
        await follower.caught_up(tip.position)
        assert follower.found == await store.history(target)
        await follower.stop()
    await server.stop()


@pytest.mark.usefixtures("impatient")
async def test_a_server_away_for_long_leaves_no_inbox_that_nobody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    create = ordered._create

    async def counted(nc: Client, stream: str, name: str, *rest: Any) -> int:
        tries.append(name)
        return await create(nc, stream, name, *rest)

    monkeypatch.setattr(ordered, "_create", counted)
    server = await start_nats(tmp_path)
    async with connection(server.url) as reader, connection(server.url) as writer:
        await ensure_all(writer.jetstream(), 1)
        follower = Follower(reader)
        tip = await append(EventStore(writer), Tip(target := ref()), created(target))
        await follower.caught_up(tip.position)
        await server.kill()

        async def tried_in_vain() -> bool:
            return len(tries) >= 4

        await eventually(tried_in_vain, "three consumers given up while the server is away")
        server = await start_nats(tmp_path, port=server.port)
        tip = await append(EventStore(writer, timeout=20), tip, renamed("after"))
        await follower.caught_up(tip.position)
        assert [r.position for r in follower.found] == [1, 2]
        assert len(reader._subs) <= 2, "the feed's inbox, and the one for replies"
        await follower.stop()
    await server.stop()


async def grow(store: EventStore, tip: Tip, count: int) -> Tip:
    for n in range(count):
        tip = await append(store, tip, renamed(str(n)))
    return tip


@pytest.fixture
async def proxy(server: NatsServer) -> AsyncIterator[Proxy]:
    async with Proxy(server.port) as made:
        yield made


@pytest.mark.usefixtures("impatient")
async def test_a_lost_line_leaves_no_inbox_that_nobody_reads(proxy: Proxy, store: EventStore) -> None:
    target = await filled(store, 3)
    async with connection(proxy.url) as reader:
        follower = Follower(reader)
        tip = (await store.load(target, lambda state, _: state)).tip
        for _ in range(3):
            await follower.caught_up(tip.position)
            proxy.lose_request(b"cut here")
            await reader.publish("anything", b"cut here")
            tip = await append(store, tip, renamed("while it is away"))
        await follower.caught_up(tip.position)
        assert proxy.cuts == 3
        positions = [r.position for r in follower.found]
        assert positions == sorted(set(positions))

        async def one_feed() -> bool:
            return len(reader._subs) <= 2  # the feed's inbox, and the one for replies

        await eventually(one_feed, "old inboxes are given up")
        await follower.stop()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("more", [True, False], ids=["by the next event", "by a heartbeat"])
async def test_an_event_lost_on_the_line_is_missed_and_comes(proxy: Proxy, store: EventStore, more: bool) -> None:
    target = await filled(store, 3)
    async with connection(proxy.url) as reader:
        follower = Follower(reader)
        tip = (await store.load(target, lambda state, _: state)).tip
        await follower.caught_up(tip.position)
        proxy.deaf = True
        tip = await append(store, tip, renamed("lost"))
        await asyncio.sleep(0.05)  # it is on its way
        proxy.deaf = False
        if more:
            tip = await append(store, tip, renamed("next"))
        await follower.caught_up(tip.position)
        assert follower.found == await everything(store)
        await follower.stop()


@pytest.mark.parametrize(
    ("headers", "reply"),
    [
        ({"Status": "100", "Nats-Last-Consumer": "x"}, ""),
        ({"Status": "100", "Nats-Last-Consumer": "9" * 5000}, ""),
        ({"Status": "503"}, ""),
        ({"Status": "100"}, "nebula.events.a.vm.x"),
        (None, "$JS.FC.x"),
    ],
)
async def test_what_a_stranger_says_to_a_feed_ends_nobody(
    nc: Client, store: EventStore, project: str, headers: dict[str, str] | None, reply: str
) -> None:
    """A consumer's inbox is no secret: whoever may ask JetStream reads it there."""
    async with aclosing(follow(nc, 0, [subjects.events(project)], event_keys=None)) as feed:
        seen = [recorded.position for recorded in await anext(feed)]
        for consumer in await nc.jetstream().consumers_info(subjects.EVENTS):
            if consumer.config.deliver_subject is not None:
                await nc.publish(consumer.config.deliver_subject, b"", reply=reply, headers=headers)
        await filled(store, 2, project)
        while len(seen) < 17:
            seen += [recorded.position for recorded in await asyncio.wait_for(anext(feed), 30)]
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.NEBULA_EVENTS.consumer.1.4711.42.1767225600000000000.7",
        "$JS.ACK.hub.aCc0uNt.NEBULA_EVENTS.consumer.1.4711.42.1767225600000000000.7",
        "$JS.ACK._.aCc0uNt.NEBULA_EVENTS.consumer.1.4711.42.1767225600000000000.7.r4nd0m",
    ],
)
def test_both_layouts_of_a_reply_are_understood(nc: Client, reply: str) -> None:
    headers = {"ce-id": "x", "Nats-Msg-Id": "x", "Nats-Expected-Stream": "NEBULA_EVENTS"}
    position, sequence, nanoseconds = ordered.delivered(reply)
    message = Msg(nc, subject="nebula.events.p.vm.v", reply=reply, data=b"{}", headers=headers)
    recorded = pushed(None, message, position, nanoseconds)
    assert (recorded.position, sequence) == (4711, 42)
    assert recorded.stored_at.isoformat() == "2026-01-01T00:00:00+00:00"
    assert recorded.headers == {"ce-id": "x"}


async def test_a_refusal_is_told_once_and_tried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []

    class Log:
        def warning(self, _text: str, **fields: Any) -> None:
            told.append(fields)

        def debug(self, _text: str, **_: Any) -> None: ...

    monkeypatch.setattr(ordered, "log", Log())
    server = await start_nats(tmp_path)
    async with connection(server.url) as nc:
        first = asyncio.create_task(take(nc, 0, 1))
        await eventually(lambda: told, "the refusal")
        await asyncio.sleep(0.3)
        assert [fields["error"] for fields in told] == ["stream not found"]
        await ensure_all(nc.jetstream(), 1)
        await append(EventStore(nc), Tip(target := ref()), created(target))
        assert [recorded.subject for recorded in await first] == [target.subject]
    await server.stop()


async def test_a_stream_that_was_made_anew_is_not_taken_for_the_one_that_was_read(nc: Client, impatient: None) -> None:
    name = some_id()
    js, config = nc.jetstream(), StreamConfig(name=name, subjects=[f"{name}.>"])
    await js.add_stream(config)
    for number in range(3):
        await js.publish(f"{name}.{number}", b"")
    async with aclosing(follow(nc, 0, [f"{name}.>"], stream=name, event_keys=None)) as feed:
        assert len(await anext(feed)) == 3
        await js.delete_stream(name)
        await js.add_stream(config)
        await js.publish(f"{name}.x", b"")
        with pytest.raises(OtherStream, match="ends at 1, and was read up to 3"):
            await anext(feed)
    await js.delete_stream(name)


async def test_a_leader_that_was_cut_off_is_not_believed_at_once(
    nc: Client, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says for a moment that the stream is shorter than what was read of it."""
    monkeypatch.setattr(ordered, "SURE", 60.0)
    name = some_id()
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name=name, subjects=[f"{name}.>"]))
    await js.publish(f"{name}.0", b"")
    asked = 0
    same = ordered.same

    async def behind(nc: Client, stream: str, after: int) -> None:
        nonlocal asked
        asked += 1
        await same(nc, stream, after + 5 if asked < 3 else after)

    monkeypatch.setattr(ordered, "same", behind)
    async with aclosing(follow(nc, 0, [f"{name}.>"], stream=name, event_keys=None)) as feed:
        assert len(await anext(feed)) == 1
        for consumer in await js.consumers_info(name):
            await js.delete_consumer(name, consumer.name)
        await js.publish(f"{name}.1", b"")
        assert len(await anext(feed)) == 1
    assert asked >= 3
    await js.delete_stream(name)
