"""A program done on the real log and on the model, step by step, and what each step came to compared."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, assert_never

import pytest
from nats.aio.client import Client

from domain.project import evolve
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.follow import follow
from eventstore.log.store import Change, Conflict, EventStore, Tip, Unavailable
from runtime import subjects
from runtime.bus.streams import events_stream
from runtime.local.servers import NatsServer, start_nats
from tests.chaos.feeds import Feed
from tests.chaos.ledger import entry
from tests.chaos.run import ANSWER
from tests.eventstore.log import CONTEXT, Proxy, connection, everything, folder_to_keep, load, noted, renamed
from tests.eventstore.model import ModelStore
from tests.eventstore.programs import (
    AHEAD,
    REFS,
    Again,
    Append,
    DeafFeeds,
    Fault,
    Follow,
    History,
    Outage,
    Race,
    Read,
    Restart,
    Step,
    Write,
)

Outcome = list[tuple[Any, ...]] | str
"""What an append came to: the events as they stand in the log, or the subject that had moved on."""


class Rig:
    """A server to be killed, two clients to write (the second through a line that can be cut), and one to follow."""

    def __init__(self, server: NatsServer, line: Proxy, feeds_line: Proxy, clients: Sequence[Client]) -> None:
        self._server = server
        self.line = line
        self.feeds_line = feeds_line
        self.reader = clients[2]
        self.stores = [EventStore(client, timeout=30) for client in clients[:2]]
        self.impatient = EventStore(clients[0], timeout=ANSWER)

    async def kill(self) -> None:
        await self._server.kill()

    async def stop(self) -> None:
        await self._server.stop()

    async def start(self) -> None:
        self._server = await start_nats(self._server.home, port=self._server.port)

    async def empty(self) -> None:
        """A new log."""
        async with connection(self._server.url) as nc:
            js = nc.jetstream()
            if (await js.account_info()).streams:
                await js.delete_stream(subjects.EVENTS)
            await js.add_stream(events_stream(1))


@asynccontextmanager
async def rig(home: Path) -> AsyncIterator[Rig]:
    folder_to_keep(home)
    server = await start_nats(home)
    async with Proxy(server.port) as line, Proxy(server.port) as feeds_line, AsyncExitStack() as stack:
        urls = [server.url, line.url, feeds_line.url]
        made = Rig(server, line, feeds_line, [await stack.enter_async_context(connection(url)) for url in urls])
        yield made
    await made.stop()


def told(recorded: Recorded) -> tuple[Any, ...]:
    """`stored_at` aside: that is the server's clock."""
    return recorded.position, recorded.subject, dict(recorded.headers), recorded.body


async def outcome(store: EventStore | ModelStore, changes: Sequence[Change]) -> Outcome:
    try:
        return [told(recorded) for recorded in await store.append(changes, CONTEXT)]
    except Conflict as error:
        return error.subject


async def run(real: Rig, program: Sequence[Step]) -> None:
    """Do all steps on an empty log, then compare all that is left, and what the feeds saw."""
    await real.empty()
    both = Both(real)
    feeds = [Feed("whole", real.reader), Feed("filtered", real.reader, [subjects.events(kind="project")])]
    try:
        for step in program:
            await both.do(step)
        await both.finish(feeds)
    finally:
        real.line.lose_nothing()
        for feed in feeds:
            await feed.close()


class Both:
    def __init__(self, real: Rig) -> None:
        self._real = real
        self._model = ModelStore()
        self._stored: list[tuple[list[Change], Outcome]] = []
        self._names = 0

    async def do(self, step: Step) -> None:
        model, store = self._model, self._real.stores[0]
        match step:
            case Append():
                await self._append(step)
            case Race():
                await self._race(step)
            case Again():
                await self._again(step)
            case Outage():
                await self._outage(step)
            case Restart():
                await (self._real.kill() if step.kill else self._real.stop())
                await self._real.start()
            case DeafFeeds():
                await self._deaf(step)
            case Read(after, filter_, limit):
                assert same(await store.read(after, filter_, limit), await model.read(after, filter_, limit))
                assert await store.last_position() == await model.last_position()
            case History(ref, number, off):
                events = await model.history(ref)
                until = None if number is None else off + (events[number % len(events)].position if events else 1)
                assert same(await store.history(ref, at=until), await model.history(ref, at=until))
                assert await load(store, ref) == await self._loaded(ref)
            case Follow(after, filters):
                await self._follow(after, list(filters) if filters else None)
            case _:
                assert_never(step)

    async def finish(self, feeds: Sequence[Feed]) -> None:
        store = self._real.stores[0]
        assert same(await everything(store), self._model.log)
        for ref in REFS:
            assert same(await store.history(ref), await self._model.history(ref))
        for feed in feeds:
            due = [entry(recorded) for recorded in self._model.log if feed.wants(recorded.subject)]
            if due:
                await feed.reach(due[-1].position, 20)
            assert feed.saw == due, f"feed {feed.name}"

    async def _append(self, step: Append) -> None:
        changes = [await self._change(write) for write in step.writes]
        line = self._real.line
        mark = b"HPUB nebula.events." if sum(len(c.events) for c in changes) < 2 else b"Nats-Batch-Commit"
        match step.fault:
            case Fault.NONE:
                await self._agree(changes, step.client)
            case Fault.LOSE_REQUEST | Fault.LOSE_ANSWER:
                lose = line.lose_request if step.fault is Fault.LOSE_REQUEST else line.lose_answer
                lose(mark)
                await self._agree(changes, client=1)
                line.lose_nothing()
            case Fault.KILL:
                sending = asyncio.create_task(outcome(self._real.stores[step.client], changes))
                await self._kill_after(step.delay)
                self._learn(changes, await sending, await outcome(self._model, changes))
            case _:
                assert_never(step.fault)

    async def _race(self, step: Race) -> None:
        """The winners stand in some order. The model takes them in that order, and then refuses all others."""
        wanted = [step.ref, *(ref for ref in step.others if ref != step.ref)]
        drafts = [[await self._change(Write(ref, 0, 1, False)) for ref in wanted] for _ in range(step.rivals)]
        sending = [outcome(self._real.stores[n % 2], changes) for n, changes in enumerate(drafts)]
        for _ in range(step.company):
            self._names += 1
            drafts.append([Change(Tip(Ref("green", "project", f"p{self._names}")), [renamed("new")])])
            sending.append(outcome(self._real.stores[0], drafts[-1]))
        singles = [pair for pair in self._stored if len(pair[1]) == 1]
        if step.company and singles:
            drafts.insert(step.again, singles[-1][0])
            sending.insert(step.again, outcome(self._real.stores[0], singles[-1][0]))
        together = asyncio.gather(*sending)
        if step.kill_after is not None:
            await self._kill_after(step.kill_after)
        came = list(zip(drafts, await together, strict=True))
        if step.company and singles:
            _, result = came.pop(min(step.again, len(came) - 1))
            assert result == singles[-1][1] or isinstance(result, str)
        won = sorted((pair for pair in came if isinstance(pair[1], list)), key=lambda pair: pair[1][0][0])
        lost = [pair for pair in came if isinstance(pair[1], str)]
        for changes, result in (*won, *lost):
            self._learn(changes, result, await outcome(self._model, changes))

    async def _again(self, step: Again) -> None:
        """Refused, or acknowledged where it stands; in no case stored once more."""
        if self._stored:
            changes, before = self._stored[step.which % len(self._stored)]
            result = await outcome(self._real.stores[step.client], changes)
            assert result == before or isinstance(result, str)
            assert await self._real.stores[0].last_position() == await self._model.last_position()

    async def _deaf(self, step: DeafFeeds) -> None:
        line, write = self._real.feeds_line, Write(step.ref, 0, 1, False)
        line.deaf = True
        await self._agree([await self._change(write)])
        await asyncio.sleep(0.02)  # it is on its way
        line.deaf = False
        if step.cut:
            line.cut()
        if step.more:
            await self._agree([await self._change(write)])

    async def _outage(self, step: Outage) -> None:
        """Unavailable is no promise: what was sent may arrive. Sent again, it is stored, or refused and found."""
        changes, impatient = [await self._change(step.write)], self._real.impatient
        await self._real.kill()
        if changes[0].events:
            with pytest.raises(Unavailable):
                await impatient.append(changes, CONTEXT)
        for attempt in (load(impatient, step.write.ref), impatient.read(0), impatient.last_position()):
            with pytest.raises(Unavailable):
                await attempt
        await self._real.start()
        result = await outcome(self._real.stores[0], changes)
        due = await outcome(self._model, changes)
        if isinstance(result, str) and isinstance(due, list):
            history = await self._real.stores[0].history(step.write.ref)
            result = [told(recorded) for recorded in history[-len(due) :]]
        self._learn(changes, result, due)

    async def _follow(self, after: int, filters: list[str] | None) -> None:
        due, found = self._model.seen(after, filters), list[Recorded]()
        if due:
            async with (
                asyncio.timeout(20),
                aclosing(follow(self._real.reader, after, filters, event_keys=None)) as feed,
            ):
                async for batch in feed:
                    found += batch
                    if len(found) >= len(due):
                        break
        assert same(found, due)

    async def _agree(self, changes: list[Change], client: int = 0) -> None:
        result = await outcome(self._real.stores[client], changes)
        self._learn(changes, result, await outcome(self._model, changes))

    def _learn(self, changes: list[Change], result: Outcome, due: Outcome) -> None:
        assert result == due
        if result and isinstance(result, list):
            self._stored.append((changes, result))

    async def _change(self, write: Write) -> Change:
        history = await self._model.history(write.ref)
        tip = Tip(write.ref)
        for recorded in history[: max(0, len(history) - max(0, write.age))]:
            tip = tip.after(recorded)
        if write.age == AHEAD:
            tip = Tip(write.ref, tip.version + 1, tip.position + 1000, "f" * 64)
        self._names += 1
        events = [noted(f"{self._names}.{n}") for n in range(write.count)]
        alone = subjects.events(kind=write.ref.kind, id_=write.ref.id) if write.alone else None
        return Change(tip, events, alone)

    async def _kill_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._real.kill()
        await self._real.start()

    async def _loaded(self, ref: Ref) -> tuple[Any, Tip]:
        loaded = await self._model.load(ref, evolve)
        return loaded.state, loaded.tip


def same(found: Sequence[Recorded], due: Sequence[Recorded]) -> bool:
    return [told(recorded) for recorded in found] == [told(recorded) for recorded in due]
