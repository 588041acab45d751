"""What it costs to seal the bytes of a console: a session over the bus with keys, next to one without.

Both ends are in this process, and its CPU time is measured: the cost is nothing else. The rounds take turns; a ratio is
that of two rounds next to each other, and the median of all pairs counts. The largest messages are those of a display;
a line is what a shell prints. The rest of the way (hypervisor, gateway, WebSocket) is left out, so a caller sees less
of the cost.
"""

import asyncio
import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import nats

from runtime.bus.pipe import PIECE, Pipe
from runtime.local.servers import start_nats

ROUNDS = 15
#: bytes of a message, and of a round
SIZES = {"largest": (PIECE, 48 * 1024 * 1024), "line": (80, 800_000)}


async def measure() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        server = await start_nats(Path(home))
        try:
            for name, (piece, total) in SIZES.items():
                pairs = [await pair(server.url, piece, total, first=bool(each % 2)) for each in range(ROUNDS)]
                plain, sealed = (statistics.median(one[sealed] for one in pairs) for sealed in (False, True))
                ratio = statistics.median(one[True] / one[False] for one in pairs)
                found |= {
                    f"{name}_plain_mb_per_cpu_s": round(plain, 1),
                    f"{name}_sealed_mb_per_cpu_s": round(sealed, 1),
                }
                found[f"{name}_ratio"] = round(ratio, 3)
        finally:
            await server.stop()
    return found


async def pair(url: str, piece: int, total: int, *, first: bool) -> dict[bool, float]:
    """MB per second of CPU time: of a round without keys, and of one with them. `first`: which is the first."""
    return {sealed: await once(url, piece, total, sealed=sealed) for sealed in (first, not first)}


async def once(url: str, piece: int, total: int, *, sealed: bool) -> float:
    here, there = (f"bench.{uuid.uuid4().hex}" for _ in range(2))
    keys = os.urandom(32), os.urandom(32)
    connections = await nats.connect(url), await nats.connect(url)
    one, other = Pipe(connections[0], here, there), Pipe(connections[1], there, here)
    if sealed:
        one.seal(*keys)
        other.seal(*keys[::-1])
    for pipe, nc in ((one, connections[0]), (other, connections[1])):
        await pipe.open()
        await nc.flush()

    async def read() -> None:
        taken = 0
        while taken < total // piece * piece:
            taken += len(await other.receive())

    data, began = os.urandom(piece), time.process_time()
    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        for _ in range(total // piece):
            await one.send(data)
    seconds = time.process_time() - began
    for pipe, nc in ((one, connections[0]), (other, connections[1])):
        await pipe.close("over")
        await nc.close()
    return total / seconds / 1e6
