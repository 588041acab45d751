"""Restarts the log's NATS server after its disk was full.

Once a write to the files of a stream has failed, nats-server stores nothing more in it, even if there is free space
again: it has to be restarted. Acknowledged messages are on the disk. A server of a cluster stops JetStream as a whole
then, and says so in its log (`gave_up`); the others go on without it.
"""

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from runtime.images.disk_room import free_bytes
from runtime.local.servers import NatsServer
from runtime.tasks.backoff import Backoff

#: Seconds between two checks.
LOOK_SECONDS = 1.0
#: Bytes that must be free before the server is restarted.
ROOM = 32 * 1024**2
#: Minimum number of seconds between two restarts.
RESTART = Backoff(first=10.0, last=600.0, jitter=0.0)


@dataclass
class FullDisk:
    """Stops a server that needs a restart to store again; its supervisor starts it again.

    `tell`: called with one line of text for each change. `ask`: for the server's error about a write; by default its
    monitoring port is asked.
    """

    tell: Callable[[str], None]
    ask: Callable[[NatsServer], Awaitable[str | None]] | None = None
    _restarts: int = 0
    _not_before: float = 0.0

    async def watch(self, server: NatsServer) -> None:
        """Watch a running server. Returns after it was stopped."""
        store, reported = server.home / "nats", False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            trouble = await (self.ask or monitored)(server)
            if trouble is None:
                continue
            if not reported:
                self.tell(f"cannot store: {trouble}")
                if free_bytes(store) < ROOM:
                    self.tell(f"free at least {ROOM >> 20} MiB on the disk of {store}; the server then continues")
                reported = True
            now = time.monotonic()
            if free_bytes(store) < ROOM or now < self._not_before:
                continue
            if now > self._not_before + RESTART.last:
                self._restarts = 0
            self._restarts += 1
            self._not_before = now + RESTART.after(self._restarts)
            self.tell(f"there is free space on the disk of {store} again; restarting the server, so that it can store")
            await server.stop()
            return


#: What a server of a cluster logs when it stops JetStream, or stores nothing more in one stream, as a write has failed.
GAVE_UP = (b"JetStream out of resources, will be DISABLED", b"Critical write error")
_PIECE = 1024 * 1024


def gave_up(logged: bytes) -> bool:
    """Whether these bytes of a server's log say that it stores nothing any more."""
    return any(words in logged for words in GAVE_UP)


async def gives_up(log: Path, place: int) -> None:
    """Wait until a server's log says so, from this byte on. It was rotated if it is shorter."""
    before = b""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            with log.open("rb") as file:
                place = min(place, os.fstat(file.fileno()).st_size)
                file.seek(place)
                while piece := file.read(_PIECE):
                    place += len(piece)
                    if gave_up(before + piece):
                        return
                    before = (before + piece)[-100:]
        except OSError:
            continue


async def has_room(store: Path) -> None:
    """Wait until the disk of this folder has room for a server that starts."""
    while await asyncio.to_thread(free_bytes, store) < ROOM:  # noqa: ASYNC110  (a disk sends no notification)
        await asyncio.sleep(LOOK_SECONDS)


async def monitored(server: NatsServer) -> str | None:
    return await asyncio.to_thread(write_error, server.monitor)


def write_error(monitor: int) -> str | None:
    """The server's error about a stream or consumer that it cannot write; None if it reports none.

    `monitor`: its monitoring port.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # ignore proxies of the environment
    try:
        with direct.open(f"http://127.0.0.1:{monitor}/healthz?details=true", timeout=5):
            return None
    except urllib.error.HTTPError as answer:
        document = _document(answer)
    except (OSError, ValueError, HTTPException):
        return None
    return failed_write(document)


def failed_write(document: Any) -> str | None:
    """The error about a write in what a server says of its health, if there is one."""
    errors = document.get("errors") if isinstance(document, dict) else None
    texts = [str(each.get("error")) for each in errors or [] if isinstance(each, dict)]
    # Only these words distinguish a failed write from a stream that is slow to start.
    return next((text for text in texts if "write error" in text), None)


def _document(answer: urllib.error.HTTPError) -> Any:
    try:
        return json.loads(answer.read(2**20))
    except (OSError, ValueError, HTTPException):
        return None
