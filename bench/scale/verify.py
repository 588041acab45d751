"""`verify log` of the whole log: events per second, and CPU time per event, next to a raw ordered consumer."""

import asyncio
import os
import time
from pathlib import Path

from nats.aio.client import Client

from bench.scale.logs import with_bus
from eventstore.integrity.audit import verify_log
from eventstore.integrity.checkpoints import public_keys
from eventstore.log.keyring import Keyring
from runtime import subjects

FLOOR = 100_000
"""Events that the floor reads at most."""


async def measure(vms: int, home: Path | None) -> dict[str, float]:
    async with with_bus(vms, home) as (nc, folder):
        return await whole(nc, folder)


async def whole(nc: Client, folder: Path) -> dict[str, float]:
    events = await last_position(nc)
    bare = await timed_floor(nc, min(events, FLOOR)) / min(events, FLOOR)
    started, used = time.perf_counter(), cpu_seconds()
    report = await verify_log(
        nc,
        keys=public_keys(folder / "checkpoint.pub"),
        event_keys=Keyring(folder / "event.keys"),
    )
    if not report.ok or report.events != events:
        raise RuntimeError(f"{report.events} of {events} events, {report.findings[:3]}")
    seconds = time.perf_counter() - started
    return {
        "events": events,
        "events_per_second": round(events / seconds),
        "cpu_us_per_event": round((cpu_seconds() - used) / events * 1e6, 1),
        "floor_per_second": round(1 / bare),
        "ratio": round(bare * events / seconds, 3),
    }


def cpu_seconds() -> float:
    """CPU time of this process, and of its children that have ended."""
    return sum(os.times()[:4])


async def last_position(nc: Client) -> int:
    return (await nc.jetstream().stream_info(subjects.EVENTS)).state.last_seq


async def timed_floor(nc: Client, events: int) -> float:
    """Seconds in which nats-py's own ordered consumer reads so many messages and looks into none."""
    started = time.perf_counter()
    subscription = await nc.jetstream().subscribe(
        ">", stream=subjects.EVENTS, ordered_consumer=True, pending_msgs_limit=-1, pending_bytes_limit=-1
    )
    for _ in range(events):
        await subscription.next_msg(timeout=10)
    await subscription.unsubscribe()
    await asyncio.sleep(0)
    return time.perf_counter() - started
