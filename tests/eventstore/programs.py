"""Programs against the log: what Hypothesis makes up, done on the real one and on the model, compared step by step.

A step is data. Those that break something do it to the real one only: what comes of an append, and what is read, must
be as if nothing had happened.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, assert_never

import pytest
from hypothesis import strategies as st
from nats.aio.client import Client

from domain.project import evolve
from eventstore.envelope import Recorded, Ref
from eventstore.follow import follow
from eventstore.group import ALONE
from eventstore.store import PAGE, Change, Conflict, EventStore, Tip, Unavailable
from runtime import subjects
from runtime.servers import NatsServer, start_nats
from runtime.streams import events_stream
from tests.chaos.feeds import Feed
from tests.chaos.ledger import entry
from tests.chaos.run import ANSWER
from tests.eventstore.log import CONTEXT, Proxy, connection, everything, folder_to_keep, load, noted, renamed
from tests.eventstore.model import ModelStore

REFS = [
    Ref("red", "project", "a"),
    Ref("red", "project", "b"),
    Ref("red", "tag", "a"),
    Ref("blue", "tag", "c"),
    Ref("blue", "vm", "c"),
    Ref("blue", "project", "a"),  # the first one's id: whoever comes first has it
]
FILTERS = [
    None,
    subjects.events(),
    subjects.events("red"),
    subjects.events(kind="project"),
    subjects.events(id_="c"),
    subjects.events("blue", "tag"),
    subjects.events("red", None, "a"),
    subjects.events(kind="project", id_="a"),
    REFS[1].subject,
    subjects.events("nobody"),
]
AHEAD = -1

Outcome = list[tuple[Any, ...]] | str
"""What an append came to: the events as they stand in the log, or the subject that had moved on."""

# ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Fault(Enum):
    NONE = "none"
    LOSE_REQUEST = "the request is lost with the line"
    LOSE_ANSWER = "the answer is lost with the line"
    KILL = "the server is killed"


@dataclass(frozen=True)
class Write:
    """`count` events on a tip that is `age` events old (AHEAD: one that the log never had)."""

    ref: Ref
    age: int
    count: int
    alone: bool


@dataclass(frozen=True)
class Append:
    writes: tuple[Write, ...]
    client: int
    fault: Fault
    delay: float


@dataclass(frozen=True)
class Race:
    """Several appends at once on the newest tip of one aggregate, among others that concern nobody, so many that they
    are stored in groups; and in the midst of those (`again`) one that was stored before.
    """

    ref: Ref
    others: tuple[Ref, ...]
    rivals: int
    company: int
    again: int
    kill_after: float | None


@dataclass(frozen=True)
class Again:
    """What was acknowledged is sent once more."""

    which: int
    client: int


@dataclass(frozen=True)
class Outage:
    """An append while the server is away, given up, and sent again when it is back."""

    write: Write


@dataclass(frozen=True)
class Restart:
    kill: bool


@dataclass(frozen=True)
class DeafFeeds:
    """The feeds' line goes deaf while an event is appended: that event was sent, and never came.

    Then the line is `cut`, or it goes on as if nothing had happened, with `more` to come at once or only heartbeats.
    """

    ref: Ref
    cut: bool
    more: bool


@dataclass(frozen=True)
class Read:
    after: int
    filter_: str | None
    limit: int


@dataclass(frozen=True)
class History:
    """`until` is so far from the aggregate's event of that number."""

    ref: Ref
    number: int | None
    off: int


@dataclass(frozen=True)
class Follow:
    after: int
    filters: tuple[str, ...] | None


Step = Append | Race | Again | Outage | Restart | DeafFeeds | Read | History | Follow

refs = st.sampled_from(REFS)
clients = st.integers(0, 1)
positions = st.one_of(st.integers(0, 12), st.integers(0, 60), st.just(10**9))
moments = st.floats(0, 0.01)
company = st.sampled_from([0, 2, 12, 24])
places = st.integers(0, 1).map(lambda n: n + ALONE + 1)  # the first ones that are not sent alone


def writes(ref: st.SearchStrategy[Ref] = refs) -> st.SearchStrategy[Write]:
    ages = st.sampled_from([0, 0, 0, 0, 0, 1, 2, AHEAD])
    return st.builds(Write, ref, ages, st.sampled_from([1, 1, 1, 2, 3, 0]), st.sampled_from([False, False, True]))


def appends(faults: st.SearchStrategy[Fault]) -> st.SearchStrategy[Append]:
    several = st.lists(writes(), max_size=3, unique_by=lambda write: write.ref).map(tuple)
    return st.builds(Append, several, clients, faults, moments)


some_filters = st.one_of(
    st.none(),
    st.sampled_from([(f,) for f in FILTERS if f]),
    st.lists(refs.map(lambda ref: ref.subject), min_size=2, max_size=3, unique=True).map(tuple),
)
plain = st.one_of(
    appends(st.just(Fault.NONE)),
    appends(st.just(Fault.NONE)),
    st.builds(Again, st.integers(0, 20), clients),
    st.builds(Read, positions, st.sampled_from(FILTERS), st.sampled_from([1, 2, 5, PAGE])),
    st.builds(History, refs, st.none() | st.integers(0, 9), st.integers(-1, 1)),
    st.builds(Follow, positions, some_filters),
    st.builds(
        Race,
        refs,
        st.lists(refs, max_size=2, unique=True).map(tuple),
        st.integers(2, 4),
        company,
        places,
        st.none(),
    ),
)
disturbed = st.one_of(
    appends(st.sampled_from([Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.KILL])),
    st.builds(Race, refs, st.just(()), st.integers(2, 3), company, places, moments),
    st.builds(Outage, writes()),
    st.builds(Restart, st.booleans()),
    st.builds(DeafFeeds, refs, st.booleans(), st.booleans()),
)
programs = st.lists(st.one_of(plain, plain, plain, plain, disturbed), min_size=8, max_size=30)


# ── the real one ────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── both ────────────────────────────────────────────────────────────────────────────────────────────────────────────


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
            async with asyncio.timeout(20), aclosing(follow(self._real.reader, after, filters)) as feed:
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
