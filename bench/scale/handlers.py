"""Handlers on the log of a large cloud: until they answer a command, their documents, memory, CPU at rest, creates.

`start_ratio` is the time of the start divided by that in which nats-py's ordered consumer reads the log.
`kib_per_vm` is the whole memory of the process divided by the number of VMs.
"""

import asyncio
import os
import time
import uuid
from pathlib import Path

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from bench.cloud import Cloud, pss_mib
from bench.scale.logs import with_log
from bench.scale.verify import FLOOR, last_position, timed_floor
from runtime import subjects
from runtime.tasks.tasks import heed_cancellation

PATIENCE = 1200.0
UNCHANGED = 5.0
"""Seconds without a new document after which all are written."""
REST = 20.0
"""Seconds for which the CPU time at rest is measured."""
CREATES, IN_FLIGHT = 2000, 64
TICKS = os.sysconf("SC_CLK_TCK")


async def measure(vms: int, home: Path | None) -> dict[str, float]:
    async with with_log(vms, home) as cloud:
        nc = await cloud.bus()
        try:
            return await handlers(cloud, nc, vms)
        finally:
            await nc.close()


async def handlers(cloud: Cloud, nc: Client, vms: int) -> dict[str, float]:
    events = await last_position(nc)
    read = min(events, FLOOR)
    floor = await timed_floor(nc, read) / read * events
    await cloud.start("gateway")
    await answered(cloud, "GET", "/v1/openapi.json")
    started = time.perf_counter()
    process = await cloud.start("handlers")
    await answered(cloud, "POST", "/v1/tags", {"id": "warm", "name": "warm"})
    start, start_cpu = time.perf_counter() - started, cpu(process.pid)
    documents, seconds = await all_documents(nc)
    memory = pss_mib(process.pid)
    before = cpu(process.pid)
    await asyncio.sleep(REST)
    rest = (cpu(process.pid) - before) / REST
    accepted, used = await creates(cloud, process.pid)
    again = await start_again(cloud)
    return {
        "events": events,
        "start_seconds": round(start, 2),
        "start_cpu_seconds": round(start_cpu, 2),
        "floor_seconds": round(floor, 2),
        "start_ratio": round(start / floor, 3),
        "documents": documents,
        "documents_per_second": round(documents / seconds),
        "memory_mib": round(memory, 1),
        "kib_per_vm": round(memory * 1024 / vms, 2),
        "cpu_at_rest_percent": round(rest * 100, 2),
        "creates_per_second": round(accepted),
        "cpu_ms_per_create": round(used * 1e3, 2),
        **again,
    }


async def start_again(cloud: Cloud) -> dict[str, float]:
    """Start from the snapshot of the world that handlers have written, and read the rest of the log."""
    await cloud.stop("handlers")
    started = time.perf_counter()
    process = await cloud.start("handlers")
    await answered(cloud, "POST", "/v1/tags", {"id": "again", "name": "again"})
    seconds, used = time.perf_counter() - started, cpu(process.pid)
    return {"start_of_snapshot_seconds": round(seconds, 2), "start_of_snapshot_cpu_seconds": round(used, 2)}


async def answered(cloud: Cloud, method: str, path: str, body: object = None) -> None:
    """Wait until a call succeeds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        heed_cancellation()
        try:
            async with cloud.connection() as http:
                if (await http.request(method, path, body)).status in (200, 202, 409):
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.05)
    raise RuntimeError(f"{method} {path} does not succeed: {(cloud.home / 'roles.log').read_text()[-2000:]}")


async def all_documents(nc: Client) -> tuple[int, float]:
    """The number of wanted documents once no more are written, and the seconds in which they were written."""
    found, changed, first = -1, time.perf_counter(), 0.0
    while found <= 0 or time.perf_counter() - changed < UNCHANGED:
        heed_cancellation()
        await asyncio.sleep(0.1)
        try:
            number = (await nc.jetstream().stream_info(subjects.WANTED)).state.messages
        except NotFoundError:
            number = 0
        if number != found:
            found, changed = number, time.perf_counter()
            first = first or changed
    return found, max(changed - first, 0.1)


async def creates(cloud: Cloud, pid: int) -> tuple[float, float]:
    """Creates accepted per second over HTTP, and the CPU seconds of handlers for each."""
    size = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}

    async def some() -> None:
        async with cloud.connection() as http:
            for _ in range(CREATES // IN_FLIGHT):
                heed_cancellation()
                body = {"name": f"vm-{uuid.uuid4().hex[:12]}", "image": "debian-12", "region": "nowhere", **size}
                answer = await http.request("POST", "/v1/projects/project-00/vms", body)
                if answer.status != 202:
                    raise RuntimeError(f"create: {answer.status} {answer.body[:300]!r}")

    started, before = time.perf_counter(), cpu(pid)
    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
    number = CREATES // IN_FLIGHT * IN_FLIGHT
    return number / (time.perf_counter() - started), (cpu(pid) - before) / number


def cpu(pid: int) -> float:
    """CPU seconds of a process."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / TICKS
