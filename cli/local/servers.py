"""The servers of `nebula up`: it restarts its own servers when they end, and waits for foreign ones."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from cli.local.progress import say
from projections import database
from runtime.bus import bus
from runtime.images.disk_room import free_bytes
from runtime.local.full_disk import LOOK_SECONDS, ROOM
from runtime.local.servers import NatsServer, Postgres
from runtime.settings import Common, ProjectionsSettings
from runtime.tasks import tasks
from runtime.tasks.backoff import Backoff
from runtime.tasks.patience import PASSING, one_line, patiently

#: Seconds before a server that ended is started again, when an attempt failed: doubled from the first to the last.
RETRY = Backoff(first=2.0, last=30.0)
#: Seconds of life after which a server is started again even if its disk is full.
HEALTHY_SECONDS = 30.0

T = TypeVar("T")
Server = TypeVar("Server", NatsServer, Postgres)


async def reach_nats(settings: Common) -> None:
    """Raises CannotRun, nats.errors.Error, OSError."""
    nc = bus.Connection(settings, "up")
    await nc.open()
    await nc.close()


async def reach_postgres(settings: ProjectionsSettings) -> None:
    """Raises OperationalError."""
    await (await database.connect(settings.postgres_dsn, "up")).close()


@asynccontextmanager
async def kept(
    name: str,
    start: Callable[[], Awaitable[Server]],
    watch: Callable[[Server], Coroutine[Any, Any, None]] | None = None,
) -> AsyncIterator[Server]:
    """A server that is started again whenever it ends, and stopped at the end. Raises ServerError if the
    first start fails.

    `watch` runs while the server runs, and may stop it.
    """
    server = await start()
    store = server.home / name

    async def keep() -> None:
        nonlocal server
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            watching = asyncio.create_task(watch(server), name=f"watch {name}") if watch is not None else None
            try:
                status = await server.child.process.wait()
            finally:
                if watching is not None:
                    await tasks.end([watching])
            say(f"{name:<12} ended with status {status}; starting it again")
            if clock() - started < HEALTHY_SECONDS:
                await room()
            server = await again()

    async def again() -> Server:
        """Try to start the server until it succeeds."""
        for pause in RETRY.pauses():
            try:
                return await start()
            except Exception as error:  # any error: the platform cannot work without this server
                say(f"{name:<12} {error}")
            await asyncio.sleep(pause)
            await room()
        raise AssertionError("the pauses never end")

    async def room() -> None:
        """Wait until the server's disk has free space."""
        if await asyncio.to_thread(free_bytes, store) < ROOM:
            say(f"{name:<12} the disk of {store} is full; it is started again when {ROOM >> 20} MiB are free")
            while await asyncio.to_thread(free_bytes, store) < ROOM:  # noqa: ASYNC110  (a disk sends no notification)
                await asyncio.sleep(LOOK_SECONDS)

    keeper = asyncio.create_task(keep())
    try:
        yield server
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await server.stop()


async def outside(
    name: str,
    what: str,
    attempt: Callable[[], Awaitable[T]],
    passing: tuple[type[Exception], ...] = PASSING,
) -> T:
    """Wait for a server that is not ours; returns the result of `attempt`. Raises CannotRun if it refuses us."""

    def begins(what: str, error: Exception) -> None:
        say(f"{name:<12} waiting for {what}: {one_line(error)}")

    return await patiently(what, attempt, passing, begins=begins, ends=lambda _: None)
