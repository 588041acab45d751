"""What the tests of the log share: connections, small events, a proxy that loses things, and the chain."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from domain.base import Event
from domain.named import Named
from domain.project import ProjectCreated, ProjectRenamed, evolve
from eventstore.log.envelope import GENESIS, Context, Recorded, Ref
from eventstore.log.store import Change, EventStore, Tip

CONTEXT = Context(actor="tester")
AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Client]:
    """A client that comes back at once, and says nothing about it."""

    async def silent(_: Exception) -> None: ...

    nc = await nats.connect(
        url, max_reconnect_attempts=-1, reconnect_time_wait=0.02, connect_timeout=1, error_cb=silent
    )
    try:
        yield nc
    finally:
        with contextlib.suppress(OSError):  # the server may be away
            await nc.close()


def folder_to_keep(home: Path) -> None:
    """For a server whose last stream is deleted and made again: it removes the emptied folder of all streams in its
    background, and then may fail to make the next one."""
    streams = home / "nats" / "jetstream" / "$G" / "streams"
    streams.mkdir(parents=True)
    (streams / "kept").touch()


def some_id() -> str:
    return uuid.uuid4().hex


def ref(project: str | None = None, id_: str | None = None) -> Ref:
    """An aggregate that nobody else uses."""
    return Ref(project or some_id(), "project", id_ or some_id())


def created(ref: Ref, name: str = "one") -> ProjectCreated:
    return ProjectCreated(at=AT, operation="o", fingerprint="f", project=ref.id, name=name)


def renamed(name: str) -> ProjectRenamed:
    return ProjectRenamed(at=AT, operation="o", fingerprint="f", name=name)


class Noted(Event):
    """An event that may stand on any subject."""

    TOPIC = "test.Noted"
    at: datetime = AT
    name: str


def noted(name: str) -> Noted:
    return Noted(name=name)


def name_of(recorded: Recorded) -> str:
    event: Any = recorded.event
    return str(event.name)


async def load(store: EventStore, ref: Ref) -> tuple[Named | None, Tip]:
    loaded = await store.load(ref, evolve)
    return loaded.state, loaded.tip


async def append(store: EventStore, tip: Tip, *events: Event, context: Context = CONTEXT) -> Tip:
    recorded = await store.append([Change(tip, events)], context)
    return tip.after(recorded[-1])


async def filled(store: EventStore, count: int, project: str | None = None) -> Ref:
    """An aggregate with so many events, named 1, 2, 3 …"""
    target = ref(project)
    tip = Tip(target)
    for start in range(0, count, 500):
        names = range(start + 1, min(start + 500, count) + 1)
        tip = await append(store, tip, *(renamed(str(n)) for n in names))
    return target


def broken_link(history: Iterable[Recorded]) -> int | None:
    """The version of the first event that does not fit the ones before it; None when all do."""
    previous = GENESIS
    for version, recorded in enumerate(history, start=1):
        if recorded.previous != previous or recorded.version != version:
            return version
        previous = recorded.digest
    return None


def matches(filter_: str, subject: str) -> bool:
    """Whether a filter with `*` for single tokens, and perhaps `>` for the rest, covers a subject."""
    wanted, tokens = filter_.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(w in ("*", t) for w, t in zip(wanted, tokens, strict=True))


async def everything(store: EventStore) -> list[Recorded]:
    """The whole log."""
    found: list[Recorded] = []
    while page := await store.read(found[-1].position if found else 0):
        found += page
    return found


class Proxy:
    """Stands before a server, and once cuts the line where it hurts.

    `lose_request`: what the client says is thrown away from the first chunk on that holds the mark.
    `lose_answer`: that chunk is passed on; the server's acknowledgement is not.
    `between` runs while the line is down.
    `deaf`: nothing that the server says comes through. `cut` ends all lines.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._mark: bytes | None = None
        self._answer = False
        self._lines: set[asyncio.StreamWriter] = set()
        self.deaf = False
        self.between: Callable[[], Awaitable[None]] | None = None
        self.cuts = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def lose_request(self, mark: bytes) -> None:
        self._mark, self._answer = mark, False

    def lose_answer(self, mark: bytes) -> None:
        self._mark, self._answer = mark, True

    def lose_nothing(self) -> None:
        self._mark = None

    def cut(self) -> None:
        for to_client in self._lines:
            to_client.close()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:  # it is away
            to_client.close()
            self._tasks.discard(task)
            return
        self._lines.add(to_client)
        cut = asyncio.Event()
        down = asyncio.create_task(self._down(server, to_client, cut))
        try:
            with contextlib.suppress(OSError):
                while chunk := await client.read(65536):
                    if self._mark is not None and self._mark in chunk:
                        self._mark = None
                        if self._answer:
                            cut.set()
                            to_server.write(chunk)
                            await down
                        if self.between is not None:
                            await self.between()
                        self.cuts += 1
                        return
                    to_server.write(chunk)
        finally:
            down.cancel()
            to_client.close()
            to_server.close()
            self._lines.discard(to_client)
            self._tasks.discard(task)

    async def _down(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        """Pass on, to the server's end; when the line is to be cut, swallow up to the acknowledgement of the log."""
        swallowed = b""
        with contextlib.suppress(OSError):
            while chunk := await server.read(65536):
                if cut.is_set():
                    swallowed += chunk
                    if b'"stream":"NEBULA_EVENTS"' in swallowed:
                        return
                elif not self.deaf:
                    to_client.write(chunk)
        if not cut.is_set():
            to_client.close()
