"""Many pages that watch the log: memory, CPU and delay of feeds, next to one feed alone.

A gateway of its own has the feeds, so what it uses is for them. Events are appended directly to the log, at a steady
rate. Each feed has all events. The delay is from the time when an event was decided until its frame is read here, by
one process that reads all feeds. The floor is the same rate with one feed: `cpu_ratio` is the CPU time of one event
with all feeds, divided by that with one feed, and `us_per_frame` what each further feed adds.
"""

import argparse
import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import nats

from bench.cloud import Cloud, cloud, cpu_seconds, percentile, pss_mib
from domain.project import ProjectCreated, ProjectRenamed
from eventstore.log.envelope import Context, Ref
from eventstore.log.keyring import Keyring
from eventstore.log.store import Change, EventStore, Tip
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import HANDLERS
from runtime.bus.login import login
from runtime.settings import Common
from runtime.tasks.tasks import end

_TIME = re.compile(rb'"time":"([^"]{20,40})"')
#: Seconds until all feeds are open, and until what was appended has come.
SETTLING, ARRIVING = 3.0, 10.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--feeds", type=int, default=200, help="number of feeds (200)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 100.0], help="events per second (1 100)")
    parser.add_argument("--seconds", type=float, default=15.0, help="seconds of each round (15)")


class Feed:
    """One open feed. It counts its items, and keeps the delay of each in seconds."""

    def __init__(self, port: int) -> None:
        self.items = 0
        self.delays: list[float] = []
        self.task = asyncio.create_task(self._read(port))

    async def _read(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        try:
            writer.write(b"GET /v1/feed?from=now HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
            rest = b""
            while chunk := await reader.read(2**18):
                now = time.time()
                whole, end_of_frame, rest = (rest + chunk).rpartition(b"\n\n")
                for found in _TIME.findall(whole + end_of_frame):
                    self.items += 1
                    self.delays.append(now - datetime.fromisoformat(found.decode()).timestamp())
        finally:
            writer.close()


class Writer:
    """Appends events to one project."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._ref = Ref(name := f"w-{uuid.uuid4().hex[:8]}", "project", name)
        self._tip = Tip(self._ref)

    async def write(self) -> str:
        """Append one event. Returns the project's new name."""
        at, ids = datetime.now(UTC), {"operation": str(uuid.uuid4()), "fingerprint": "f"}
        name = f"at {at}"
        event: ProjectCreated | ProjectRenamed = ProjectRenamed(at=at, name=name, **ids)
        if not self._tip.version:
            event = ProjectCreated(at=at, project=self._ref.id, name=name, **ids)
        (recorded,) = await self._store.append([Change(self._tip, [event])], Context(actor="user:bench"))
        self._tip = self._tip.after(recorded)
        return name

    async def steadily(self, rate: float, seconds: float) -> int:
        """Append at a rate for so many seconds. Returns how many."""
        clock = asyncio.get_running_loop().time
        began, count = clock(), 0
        while count < rate * seconds:
            await asyncio.sleep(max(0.0, began + count / rate - clock()))
            await self.write()
            count += 1
        return count


@asynccontextmanager
async def writer(made: Cloud) -> AsyncIterator[Writer]:
    options = login(Common(nats_creds=Authority(made.home).file(HANDLERS))).options
    nc = await nats.connect(made.nats_url, **options)
    try:
        yield Writer(EventStore(nc, Keyring(made.home / "event.keys")))
    finally:
        await nc.close()


@asynccontextmanager
async def watching(port: int, count: int) -> AsyncIterator[list[Feed]]:
    feeds = [Feed(port) for _ in range(count)]
    try:
        await asyncio.sleep(SETTLING)
        yield feeds
    finally:
        await end([feed.task for feed in feeds])


async def round_of(
    write: Writer, feeds: list[Feed], pid: int, rate: float, seconds: float
) -> tuple[float, list[float]]:
    """Seconds of CPU time for each event, and all delays. Raises RuntimeError if a feed has not every event."""
    for feed in feeds:
        feed.items, feed.delays = 0, []
    before = cpu_seconds(pid)
    count = await write.steadily(rate, seconds)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ARRIVING):
            while any(feed.items < count for feed in feeds):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    spent = cpu_seconds(pid) - before
    if any(feed.items != count for feed in feeds):
        raise RuntimeError(f"{count} events, and the feeds have {sorted({feed.items for feed in feeds})}")
    return spent / count, [delay for feed in feeds for delay in feed.delays]


async def measure(
    feeds: int = 200, rates: tuple[float, ...] | list[float] = (1.0, 100.0), seconds: float = 15.0
) -> dict[str, Any]:
    found: dict[str, Any] = {"feeds": feeds}
    async with cloud(["gateway", "handlers", "projections"]) as made, writer(made) as write:
        await made.start_another_gateway()
        port, pid = made.more_ports[0], made.processes["gateway-2"].pid
        floor: dict[float, float] = {}
        async with watching(port, 1) as one:
            for rate in rates:
                floor[rate], _ = await round_of(write, one, pid, rate, seconds)
        rest = pss_mib(pid)
        async with watching(port, feeds) as many:
            found["memory_mib_open"] = round(pss_mib(pid) - rest, 1)
            for rate in rates:
                each, delays = await round_of(write, many, pid, rate, seconds)
                found[f"rate_{rate:g}"] = {
                    "cpu_ms_per_event": round(each * 1e3, 2),
                    "cpu_ms_per_event_with_one_feed": round(floor[rate] * 1e3, 2),
                    "cpu_ratio": round(each / max(floor[rate], 1e-5), 1),
                    "us_per_frame": round((each - floor[rate]) / max(1, feeds - 1) * 1e6, 1),
                    "delay_p50_ms": round(percentile(delays, 0.5) * 1e3, 1),
                    "delay_p95_ms": round(percentile(delays, 0.95) * 1e3, 1),
                }
            found["memory_mib"] = round(pss_mib(pid) - rest, 1)
            found["memory_kib_per_feed"] = round(found["memory_mib"] * 1024 / feeds, 1)
    return found
