"""Large logs that are kept across runs, and servers on a copy of one."""

import asyncio
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from nats.aio.client import Client

from bench.cloud import Cloud, servers
from bench.homes import home as folder_of
from bench.scale.generator import KEYS, generate
from runtime.bus.quick_client import QuickClient
from runtime.local.servers import start_nats

VERSION = 1
"""The version of the generator. Raise it when the events that it makes change: the logs are then made again."""
QUIET = {"NEBULA_NODE_TIMEOUT": "3600"}
"""The nodes of the log send no heartbeats. So they count as lost only after an hour."""


def default_home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "nebula-bench"


async def log_of(vms: int, home: Path | None = None, every: int = 0) -> Path:
    """The folder with the log of a cloud with so many VMs, which is made if it is not there. Do not start a server on
    it. `every`: as of Life.
    """
    base = home or default_home()
    base.mkdir(parents=True, exist_ok=True)
    folder = base / f"log-{VERSION}-{vms}{f'-{every}' if every else ''}"
    with only_one(base / f"{folder.name}.lock"):
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            await generate(new, vms, every)
            new.rename(folder)
    return folder


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Other processes wait, so that a log is made once."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def with_log(vms: int, home: Path | None = None, **settings: str) -> AsyncIterator[Cloud]:
    """The servers of a cloud, on a copy of a log. No role runs yet (`Cloud.start`). Everything is removed in the end.

    `home`: where the logs are kept; None: the default. `settings`: the environment of the roles.
    """
    kept = await log_of(vms, home)
    async with servers(partial(copy, kept), **QUIET, **settings) as made:
        yield made


@asynccontextmanager
async def with_bus(vms: int, home: Path | None = None) -> AsyncIterator[tuple[Client, Path]]:
    """A connection to a NATS server without accounts on a copy of a log, and the folder with its keys."""
    kept = await log_of(vms, home)
    with folder_of("bench") as folder:
        await asyncio.to_thread(copy, kept, folder)
        server = await start_nats(folder)
        try:
            nc = QuickClient()
            await nc.connect(server.url)
            yield nc, folder
            await nc.close()
        finally:
            await server.stop()


def copy(kept: Path, folder: Path) -> None:
    """Copy a log and its keys; on a file system that can, without copying the bytes."""
    paths = [kept / "nats", *(kept / name for name in KEYS)]
    subprocess.run(["cp", "--archive", "--reflink=auto", *paths, folder], check=True)
