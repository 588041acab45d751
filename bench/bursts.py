"""Bursts: how long after an event is in the log it shows in the read models, and over HTTP.

Each scene is a piece of load: creates one after the other, 100 at the same time, 1,000 at the same time, stops and
starts of many, deletes, and a burst on top of a steady trickle. For each event of a scene, `read_model` is the time
from its JetStream timestamp until the read models have it, and `consumer`, the floor, the time until the benchmark's
own ordered consumer has it. `http` is the time from the last event of an operation until a client that waits for this
operation has the answer. The nodes are simulated, without delays. All times are of one host's clock, in milliseconds.
"""

import argparse
import asyncio
import bisect
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection

from bench.cloud import IMAGE, Cloud, percentile
from bench.fleet_parts import SIZE, VMS, accepted, fleet
from bench.http import Connection
from domain.vm import VmDeleted, VmStarted, VmStopped
from eventstore.log.envelope import Recorded
from eventstore.log.follow import follow
from projections.database import SCHEMA
from runtime.bus import bus
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import MAINTENANCE
from runtime.settings import Common

NODES = 10
#: Operations of a burst that are in flight at most, each over its own connection.
IN_FLIGHT = 256
#: Seconds between two operations of a trickle.
TRICKLE = 0.05
#: Milliseconds from the log to the read models in which 99 of 100 events should be seen.
GOAL = 250.0
#: The events that end the operations of the scenes.
ENDS = frozenset(each.TOPIC for each in (VmStarted, VmStopped, VmDeleted))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--few", type=int, default=100, help="operations of a small burst (100)")
    parser.add_argument("--many", type=int, default=1000, help="operations of a large burst (1000)")
    parser.add_argument("--nodes", type=int, default=NODES)


@dataclass
class Heard:
    """What the benchmark hears: when each event was stored and arrived here, and when the read models moved."""

    stored: dict[int, float] = field(default_factory=dict)
    arrived: dict[int, float] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    """The position of the event that ends an operation."""
    positions: list[int] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)

    def event(self, recorded: Recorded, now: float) -> None:
        self.stored[recorded.position] = recorded.stored_at.timestamp()
        self.arrived[recorded.position] = now
        operation = recorded.headers.get("ce-operationid")
        if operation is not None and recorded.type in ENDS:
            self.ended.setdefault(operation, recorded.position)

    def shown(self, position: int) -> float | None:
        """When the read models had an event; None if they do not have it yet."""
        index = bisect.bisect_left(self.positions, position)
        return self.moved[index] if index < len(self.moved) else None

    def end(self) -> int:
        return max(self.stored, default=0)


@asynccontextmanager
async def listening(made: Cloud, after: int = 0) -> AsyncIterator[Heard]:
    """Hear the log and the read models."""
    heard = Heard()
    nc = await bus.connect(
        Common(nats_url=made.nats_url, nats_creds=Authority(made.home).file(MAINTENANCE)), "bench-bursts"
    )
    async with await AsyncConnection.connect(made.env["NEBULA_POSTGRES_DSN"], autocommit=True) as conn:
        await conn.execute(f"LISTEN {SCHEMA}_position".encode())

        async def read() -> None:
            async for batch in follow(nc, after, event_keys=None):
                now = time.time()
                for recorded in batch:
                    heard.event(recorded, now)

        async def notices() -> None:
            async for note in conn.notifies():
                heard.positions.append(int(note.payload))
                heard.moved.append(time.time())

        tasks = [asyncio.create_task(read()), asyncio.create_task(notices())]
        try:
            yield heard
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await nc.close()


async def measure(few: int = 100, many: int = 1000, nodes: int = NODES) -> dict[str, Any]:
    async with fleet(nodes) as made, listening(made) as heard:
        load = Load(made)
        await load.burst([None] * min(few, 20), load.create)  # warm
        scenes: dict[str, Callable[[], Awaitable[None]]] = {
            "trickle": lambda: load.trickle(few),
            "creates": lambda: load.burst([None] * few, load.create),
            "many_creates": lambda: load.burst([None] * many, load.create),
            "stops": lambda: load.burst(load.vms[:few], load.stop),
            "starts": lambda: load.burst(load.vms[:few], load.start),
            "burst_on_a_trickle": lambda: load.both(few, few),
            "deletes": lambda: load.burst(load.vms[-many:], load.delete),
        }
        found = {name: await one_scene(heard, load, scene) for name, scene in scenes.items()}
    worst = max(scene["read_model"]["p99"] for scene in found.values())
    return {
        "few": few,
        "many": many,
        "nodes": nodes,
        "worst_read_model_p99": worst,
        "worst_http_p99": max(scene["http"]["p99"] for scene in found.values()),
        "worst_consumer_p99": max(scene["consumer"]["p99"] for scene in found.values()),
        "goal_reached": worst <= GOAL,
        **found,
    }


class Load:
    """Operations on VMs, each of which waits until a client sees that it has ended. `seen`: when, by operation."""

    def __init__(self, made: Cloud) -> None:
        self._made = made
        self.vms: list[str] = []
        self.seen: dict[str, float] = {}

    async def trickle(self, number: int) -> None:
        """Creates, one after the other, at a steady pace."""
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(self._with_connection(self.create, None))
                await asyncio.sleep(TRICKLE)

    async def burst(self, items: Sequence[str | None], do: Callable[[Connection, Any], Awaitable[None]]) -> None:
        """An operation for each item, as many as possible at the same time."""
        left = iter(list(items))

        async def worker() -> None:
            async with self._made.connection() as http:
                for item in left:
                    await do(http, item)

        await asyncio.gather(*(worker() for _ in range(min(IN_FLIGHT, len(items)))))

    async def both(self, trickle: int, burst: int) -> None:
        """A burst that begins in the middle of a trickle."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.trickle(trickle))
            await asyncio.sleep(trickle * TRICKLE / 2)
            await self.burst([None] * burst, self.create)

    async def create(self, http: Connection, _: str | None) -> None:
        answer = await self._operation(http, "POST", VMS, {"name": "burst", "image": IMAGE, **SIZE})
        self.vms.append(answer["vm"]["id"])

    async def stop(self, http: Connection, vm: str) -> None:
        await self._operation(http, "POST", f"{VMS}/{vm}/stop", {})

    async def start(self, http: Connection, vm: str) -> None:
        await self._operation(http, "POST", f"{VMS}/{vm}/start", {})

    async def delete(self, http: Connection, vm: str) -> None:
        await self._operation(http, "DELETE", f"{VMS}/{vm}", None)

    async def _with_connection(self, do: Callable[[Connection, Any], Awaitable[None]], item: str | None) -> None:
        async with self._made.connection() as http:
            await do(http, item)

    async def _operation(self, http: Connection, method: str, path: str, body: Any) -> Any:
        answer = await accepted(http, method, path, body, str(uuid.uuid4()))
        id_ = answer["operation"]["id"]
        while True:
            found = await http.request("GET", f"/v1/operations/{id_}?wait=30s")
            if found.status == 200 and (operation := found.json())["status"] not in ("accepted", "running"):
                break
            if found.status not in (200, 503):
                raise RuntimeError(f"operation {id_}: {found.status} {found.body[:300]!r}")
        self.seen[id_] = time.time()
        if operation["status"] != "succeeded":
            raise RuntimeError(f"{method} {path}: {operation}")
        return answer


async def one_scene(heard: Heard, load: Load, scene: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """The figures of all events that a scene causes."""
    before, known = heard.end(), set(load.seen)
    started = time.perf_counter()
    await scene()
    took = time.perf_counter() - started
    await settled(heard)
    events = [position for position in heard.stored if position > before]
    ended = [(heard.ended[id_], seen) for id_, seen in load.seen.items() if id_ not in known]
    shown = [(heard.shown(position) or time.time()) - heard.stored[position] for position in events]
    return {
        "operations": len(ended),
        "events": len(events),
        "seconds": round(took, 2),
        "read_model": figures(shown),
        "http": figures([seen - heard.stored[position] for position, seen in ended]),
        "consumer": figures([heard.arrived[position] - heard.stored[position] for position in events]),
    }


async def settled(heard: Heard) -> None:
    """Wait until the log stands still, and the read models have all of it."""
    last = -1
    while (end := heard.end()) != last or heard.shown(end) is None:
        last = end
        await asyncio.sleep(0.5)


def figures(seconds: Sequence[float]) -> dict[str, float]:
    milliseconds = [each * 1e3 for each in seconds]
    return {
        "p50": round(percentile(milliseconds, 0.50), 1),
        "p99": round(percentile(milliseconds, 0.99), 1),
        "max": round(max(milliseconds), 1),
    }
