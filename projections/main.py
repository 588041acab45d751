"""The process of the read side: the runner, and the data source that guests ask."""

import asyncio
import contextlib
import os
import signal

from nats.errors import Error as NatsError

from eventstore.vault import Vault
from projections import database
from projections.cloud_init import Source
from projections.position import Position
from projections.runner import Runner
from runtime import bus, listener, logs, tasks
from runtime.settings import ProjectionsSettings

log = logs.get(__name__)

#: On a busy host commands get the processor before reads do: what is accepted cannot wait, what is shown can.
NICE = 5


async def run(settings: ProjectionsSettings) -> None:
    """Keep the read models and serve guests until SIGTERM or SIGINT. What fails for good is raised."""
    os.nice(NICE)
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stop.set)
    work = asyncio.create_task(keep(settings, stop), name="projections")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        stopped.cancel()
        await work
    await tasks.end([work])
    log.info("projections stopped")


async def keep(settings: ProjectionsSettings, stop: asyncio.Event) -> None:
    """The runner and the data source side by side, until cancelled or one of them fails."""
    nc = await bus.connect(settings, "projections")
    pool = database.pool(settings.postgres_dsn, "cloud-init", size=4)
    work: set[asyncio.Task[None]] = set()
    try:
        await pool.open()
        vault = Vault.of(nc, settings.master_key_path)
        position = Position()
        runner = Runner(nc, settings.postgres_dsn, vault, position)
        source = Source(nc, pool, vault, position)
        work.add(asyncio.create_task(runner.run(), name="runner"))
        work.add(asyncio.create_task(seed_guests(settings, source, stop), name="cloud-init"))
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        await tasks.end(work)
        await pool.close()
        with contextlib.suppress(OSError, NatsError):  # the server may be gone before us
            await nc.close()


async def seed_guests(settings: ProjectionsSettings, source: Source, stop: asyncio.Event) -> None:
    """The data source, once its address is there."""
    sock = await listener.bound("data source", settings.seed_host, settings.seed_port)
    host, port = sock.getsockname()[:2]
    log.info("data source listens", host=host, port=port)
    await listener.serve(source, sock, stop, settings.http_limits)
