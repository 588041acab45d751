"""Builds the past in a process of its own, with the lowest priority, and ends.

The role projections starts it if the past is far behind: at the first start of a version with a past, or with a new
version of its read models. The process ends with the one that has started it. It may be killed at any time: rows and
checkpoint change together, and the next one continues there.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress

from eventstore.log.keyring import Keyring
from projections.past.models import PAST
from projections.past.secrets import NoSecrets
from projections.position import Position
from projections.runner import Runner
from runtime import logs
from runtime.bus import bus
from runtime.settings import ProjectionsSettings, read

log = logs.get(__name__)

#: Priority of the process: it gets the processor when nobody else wants it.
NICE = 19


class BuildFailed(Exception):
    """The process has ended before the past was built. Its log says why."""


async def in_a_process() -> None:
    """Build the past up to the end of the log, and return. Raises BuildFailed, OSError."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdin=PIPE)
    try:
        status = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if status != 0:
        raise BuildFailed(f"the process that builds the past ended with status {status}")


async def build(settings: ProjectionsSettings) -> None:
    """Apply the log up to its present end."""
    nc = await bus.connect(settings, "projections")
    try:
        keys = Keyring(settings.event_keys_path)
        runner = Runner(
            nc, settings.postgres_dsn, NoSecrets(), Position(), PAST.models, keys, parks=False, schema=PAST.schema
        )
        await runner.build()
    finally:
        await nc.close()


async def until_the_parent_ends(settings: ProjectionsSettings) -> None:
    """Build, but end when the other end of our standard input does."""
    parent = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
    work = asyncio.create_task(build(settings))
    await asyncio.wait({work, parent}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        os._exit(1)  # nobody waits for us: the transaction in progress is rolled back
    error = work.exception()
    if error is not None:
        log.error("the past was not built", error=str(error), exc_info=error)
    sys.stdout.flush()
    os._exit(0 if error is None else 1)  # the thread waits for its input


def main() -> None:
    import uvloop

    os.nice(NICE)
    settings = read(ProjectionsSettings)
    logs.configure("projections", settings.log_level, settings.log_format)
    uvloop.run(until_the_parent_ends(settings))


if __name__ == "__main__":
    main()
