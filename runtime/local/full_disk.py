"""Heal an event log's server whose disk was full.

nats-server stores nothing more in a stream once a write to its files has failed, also when there is room again: it has
to be started again. What it acknowledged is on disk, and it starts from that.
"""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from runtime.images.disk_room import free_bytes
from runtime.local.servers import NatsServer
from runtime.tasks.backoff import Backoff

#: Seconds between two looks.
LOOK_SECONDS = 1.0
#: Bytes that have to be free before the server is started again.
ROOM = 32 * 1024**2
#: Seconds from one restart to the next, at the least.
RESTART = Backoff(first=10.0, last=600.0, jitter=0.0)


@dataclass
class FullDisk:
    """Stops a server that can store again once it is started again; whoever keeps it starts it.

    `tell` is given one line for each change.
    """

    tell: Callable[[str], None]
    _restarts: int = 0
    _not_before: float = 0.0

    async def watch(self, server: NatsServer) -> None:
        """Look after a server that runs; return once it was stopped."""
        store, told = server.home / "nats", False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            trouble = await asyncio.to_thread(write_error, server.monitor)
            if trouble is None:
                continue
            if not told:
                self.tell(f"cannot store: {trouble}")
                if free_bytes(store) < ROOM:
                    self.tell(f"make room on the disk of {store}, {ROOM >> 20} MiB or more; it goes on by itself then")
                told = True
            now = time.monotonic()
            if free_bytes(store) < ROOM or now < self._not_before:
                continue
            if now > self._not_before + RESTART.last:
                self._restarts = 0
            self._restarts += 1
            self._not_before = now + RESTART.after(self._restarts)
            self.tell(f"there is room again on the disk of {store}; starting the server again, so that it stores")
            await server.stop()
            return


def write_error(monitor: int) -> str | None:
    """What the server on this port says of a stream or consumer that it cannot write; None when it says nothing."""
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment names
    try:
        with straight.open(f"http://127.0.0.1:{monitor}/healthz?details=true", timeout=5):
            return None
    except urllib.error.HTTPError as answer:
        said = _document(answer)
    except (OSError, ValueError, HTTPException):
        return None
    errors = said.get("errors") if isinstance(said, dict) else None
    texts = [str(each.get("error")) for each in errors or [] if isinstance(each, dict)]
    # The server tells a failed write from streams that are slow to start by these words alone.
    return next((text for text in texts if "write error" in text), None)


def _document(answer: urllib.error.HTTPError) -> Any:
    try:
        return json.loads(answer.read(2**20))
    except (OSError, ValueError, HTTPException):
        return None
