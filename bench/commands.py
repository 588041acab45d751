"""How many create commands are accepted over HTTP per second, next to raw durable publishes on the same server.

64 in flight, each create a JSON body over its own keep-alive connection, every check on, answered 202 only when its
event is on disk. The floor: nats-py publishing messages of the same size with 64 in flight, before and after. With
several gateways, each has its share of the connections; with several handlers, each gets its share of the commands.
"""

import argparse
import asyncio
import time
import uuid
from typing import Any

from nats.js.api import StreamConfig

from bench.cloud import IMAGE, PROJECT, Cloud, cloud, expect, percentile
from bench.http import Connection
from runtime import subjects

IN_FLIGHT = 64
COUNT = 6000
ALONE = 500
EVENT_BYTES = 1000
"""About what a VmRequested takes on the wire: body and headers."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gateways", type=int, default=1, help="number of gateways (1)")
    parser.add_argument("--handlers", type=int, default=1, help="number of handlers (1)")
    parser.add_argument("--count", type=int, default=COUNT, help=f"number of creates ({COUNT})")


async def measure(gateways: int = 1, handlers: int = 1, count: int = COUNT) -> dict[str, Any]:
    async with cloud(["gateway", "handlers", "projections", "node"], NEBULA_LIBVIRT_URI="test:///default") as made:
        for number in range(2, handlers + 1):
            await made.start("handlers", name=f"handlers-{number}")
        for _ in range(2, gateways + 1):
            await made.start_another_gateway()
        await made.prepare()
        await creates(made, 500)  # warm
        before = await raw(made, count)
        rate = await creates(made, count)
        after = await raw(made, count)
        floor = (before + after) / 2
        await _settled(made)
        alone = await _alone(made)
        raw_alone = await _raw_alone(made)
        pss = made.pss_mib()
    return {
        "creates_per_second": round(rate),
        "raw_publishes_per_second": round(floor),
        "ratio": round(rate / floor, 3),
        "in_flight": IN_FLIGHT,
        "gateways": gateways,
        "handlers": handlers,
        "p50_ms_at_1_in_flight": round(percentile(alone, 0.50) * 1e3, 2),
        "p95_ms_at_1_in_flight": round(percentile(alone, 0.95) * 1e3, 2),
        "raw_p50_ms_at_1_in_flight": round(percentile(raw_alone, 0.50) * 1e3, 2),
        "pss_mib": round(sum(pss.values())),
        "pss_mib_by_role": pss,
    }


def body() -> dict[str, Any]:
    """A create in a region without nodes: accepted and recorded, not built."""
    name = f"vm-{uuid.uuid4().hex[:12]}"
    size = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
    return {"name": name, "image": IMAGE, "region": "nowhere", **size}


async def _create(http: Connection) -> None:
    answer = await http.request("POST", f"/v1/projects/{PROJECT}/vms", body())
    if answer.status != 202:
        raise RuntimeError(f"create: {answer.status} {answer.body[:300]!r}")


async def creates(made: Cloud, count: int, in_flight: int = IN_FLIGHT) -> float:
    """Accepted creates per second."""
    left = iter(range(count))

    async def worker() -> None:
        async with made.connection() as http:
            for _ in left:
                await _create(http)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return count / (time.perf_counter() - started)


async def _alone(made: Cloud) -> list[float]:
    """Seconds of each create with nothing else in flight."""
    times = []
    async with made.connection() as http:
        for _ in range(ALONE):
            started = time.perf_counter()
            await _create(http)
            times.append(time.perf_counter() - started)
    return times


async def _raw_alone(made: Cloud) -> list[float]:
    """Seconds of each durable publish by bare nats-py with nothing else in flight."""
    nc = await made.bus()
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name="FLOOR", subjects=["floor.*"]))
    times = []
    for number in range(ALONE):
        started = time.perf_counter()
        await js.publish(f"floor.{number}", b"x" * EVENT_BYTES)
        times.append(time.perf_counter() - started)
    await js.delete_stream("FLOOR")
    await nc.close()
    return times


async def _settled(made: Cloud) -> None:
    """Wait until managers and read models have nothing left to do: the log stands still, and all of it was read."""
    nc = await made.bus()
    last = -1
    while True:
        info = await nc.jetstream().stream_info(subjects.EVENTS)
        if info.state.last_seq == last:
            break
        last = info.state.last_seq
        await asyncio.sleep(1)
    await nc.close()
    async with made.connection() as http:
        await expect(http, "GET", f"/v1/projects/{PROJECT}?min_position={last}")


async def raw(made: Cloud, count: int, in_flight: int = IN_FLIGHT) -> float:
    """Durable publishes per second by bare nats-py."""
    nc = await made.bus()
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name="FLOOR", subjects=["floor.*"]))
    payload = b"x" * EVENT_BYTES
    left = iter(range(count))

    async def worker() -> None:
        for number in left:
            await js.publish(f"floor.{number}", payload)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    rate = count / (time.perf_counter() - started)
    await js.delete_stream("FLOOR")
    await nc.close()
    return rate
