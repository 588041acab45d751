"""Where the time goes between a request and its effect: create, stop and start of a VM, one at a time.

A simulated node without delays, so all of the time is the platform's. The stages are not measured by the roles: the
messages themselves say when they were decided and stored, and the benchmark hears the streams and the read models. All
times are of one host's clock. The floor is a durable publish by bare nats-py in the same run.
"""

import argparse
import asyncio
import json
import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig
from psycopg import AsyncConnection

from bench.cloud import IMAGE, PROJECT, Cloud, cloud, cpu_seconds, expect, percentile
from bench.http import Connection
from domain.vm import VmRequested, VmScheduled, VmStarted, VmStartRequested, VmStopped, VmStopRequested
from projections.database import SCHEMA
from runtime import subjects

COUNT = 100
ROLES = ("gateway", "handlers", "projections", "simulation")
NO_DELAYS = '{"call":0,"image":0,"boot":0,"lease":0,"shutdown":0,"memory":0,"reboot":0}'
Life = tuple[str, dict[str, "Times"]]
"""The id of a VM, and the times of its operations."""
#: Milliseconds from which on a time is an outlier.
OUTLIER = 250.0
VMS = f"/v1/projects/{PROJECT}/vms"
VERBS = ("create", "stop", "start")
#: The events of these operations. Addresses of a guest are no part of them, whenever they come.
TYPES = {each.TOPIC for each in (VmRequested, VmScheduled, VmStopRequested, VmStopped, VmStartRequested, VmStarted)}


class Stored(NamedTuple):
    """A message of a stream. `made`, `stored`: seconds since 1970."""

    made: float
    stored: float
    position: int = 0


@dataclass
class Heard:
    """What was heard of one VM."""

    events: list[Stored] = field(default_factory=list)
    wanted: list[float] = field(default_factory=list)
    reports: list[Stored] = field(default_factory=list)


class Times(NamedTuple):
    """When an operation was requested, accepted, and seen to have ended, in seconds since 1970."""

    sent: float
    accepted: float
    seen: float


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=COUNT, help=f"number of VMs, one after the other ({COUNT})")


async def measure(count: int = COUNT) -> dict[str, Any]:
    settings = {"NEBULA_SIMULATE": "1", "NEBULA_SIMULATE_SECONDS": NO_DELAYS, "NEBULA_SIMULATE_PHONE_HOME": "false"}
    async with cloud(ROLES, **settings) as made:
        await made.prepare()
        async with listening(made) as (heard, positions), made.connection() as http:
            for _ in range(3):
                await _life(http)  # warm
            floor = await _floor(made)
            before = {name: cpu_seconds(child.pid) for name, child in made.processes.items()}
            lives = [await _life(http) for _ in range(count)]
            used = {name: cpu_seconds(child.pid) - before[name] for name, child in made.processes.items()}
            await asyncio.sleep(0.5)
        return {
            "vms": count,
            "durable_publish_ms_p50": _ms(floor),
            "create_per_durable_publish": round(_total(lives, "create") / statistics.median(floor), 1),
            **{verb: _figures(verb, lives, heard, positions) for verb in VERBS},
            "cpu_ms_per_vm": {name: round(seconds / count * 1e3, 2) for name, seconds in used.items()},
        }


# ── operations ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def _life(http: Connection) -> Life:
    """A VM is created, stopped, started and deleted."""
    body = {"name": f"vm-{uuid.uuid4().hex[:12]}", "image": IMAGE, "vcpus": 1, "memory_mib": 128, "disk_gib": 1}
    first, times = await _operation(http, VMS, body)
    vm = str(first["vm"]["id"])
    found = {"create": times}
    for verb in ("stop", "start"):
        _, found[verb] = await _operation(http, f"{VMS}/{vm}/{verb}", {})
    await expect(http, "DELETE", f"{VMS}/{vm}?wait=60s")
    return vm, found


async def _operation(http: Connection, path: str, body: Any) -> tuple[Any, Times]:
    sent = time.time()
    accepted = await expect(http, "POST", path, body)
    answered = time.time()
    operation = await expect(http, "GET", f"/v1/operations/{accepted['operation']['id']}?wait=60s")
    seen = time.time()
    if operation["status"] != "succeeded":
        raise RuntimeError(f"{path}: {operation}")
    return accepted, Times(sent, answered, seen)


async def _floor(made: Cloud) -> list[float]:
    """Seconds of each durable publish by bare nats-py."""
    nc = await made.bus()
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name="FLOOR", subjects=["floor.*"]))
    times = []
    for number in range(100):
        started = time.perf_counter()
        await js.publish(f"floor.{number}", b"x" * 1000)
        times.append(time.perf_counter() - started)
    await js.delete_stream("FLOOR")
    await nc.close()
    return times


# ── listening ───────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def listening(made: Cloud) -> AsyncIterator[tuple[Mapping[str, Heard], list[tuple[int, float]]]]:
    """What is heard of each VM by its id, and when the read models have reached which position."""
    heard: dict[str, Heard] = defaultdict(Heard)
    positions: list[tuple[int, float]] = []
    nc = await made.bus()
    await _hear(nc, heard)
    async with await AsyncConnection.connect(made.env["NEBULA_POSTGRES_DSN"], autocommit=True) as conn:
        await conn.execute(f"LISTEN {SCHEMA}_position".encode())

        async def follow() -> None:
            async for note in conn.notifies():
                positions.append((int(note.payload), time.time()))

        following = asyncio.create_task(follow())
        try:
            yield heard, positions
        finally:
            following.cancel()
            await asyncio.wait([following])
            await nc.close()


async def _hear(nc: Client, heard: Mapping[str, Heard]) -> None:
    def stored(msg: Msg) -> float:
        return msg.metadata.timestamp.timestamp()

    async def event(msg: Msg) -> None:
        headers = msg.headers or {}
        if headers["ce-type"] in TYPES:
            decided = datetime.fromisoformat(headers["ce-time"]).timestamp()
            heard[_id(msg)].events.append(Stored(decided, stored(msg), msg.metadata.sequence.stream))

    async def wanted(msg: Msg) -> None:
        heard[_id(msg)].wanted.append(stored(msg))

    async def report(msg: Msg) -> None:
        made = datetime.fromisoformat(json.loads(msg.data)["at"]).timestamp()
        heard[_id(msg)].reports.append(Stored(made, stored(msg)))

    js = nc.jetstream()
    await js.subscribe(subjects.events(kind="vm"), cb=event, stream=subjects.EVENTS, ordered_consumer=True)
    await js.subscribe(subjects.wanted_of(), cb=wanted, stream=subjects.WANTED, ordered_consumer=True)
    await js.subscribe(subjects.REPORTS_OF_ALL, cb=report, stream=subjects.REPORTS, ordered_consumer=True)


def _id(msg: Msg) -> str:
    return msg.subject.rpartition(".")[2]


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _figures(
    verb: str,
    lives: Sequence[Life],
    heard: Mapping[str, Heard],
    positions: Sequence[tuple[int, float]],
) -> dict[str, Any]:
    """Milliseconds from the request until the effect is seen over HTTP, and the median of each stage."""
    totals = [times[verb].seen - times[verb].sent for _, times in lives]
    found: dict[str, list[float]] = defaultdict(list)
    for vm, times in lives:
        for name, seconds in stages(times[verb], heard[vm], positions).items():
            found[name].append(seconds)
    return {
        "ms_p50": _ms(totals),
        "ms_p99": round(percentile(totals, 0.99) * 1e3, 2),
        "ms_max": round(max(totals) * 1e3, 2),
        "outliers": sum(total * 1e3 > OUTLIER for total in totals),
        "accepted_ms_p50": _ms([times[verb].accepted - times[verb].sent for _, times in lives]),
        "stages_ms_p50": {name: _ms(seconds) for name, seconds in found.items()},
        "stages_ms_of_slowest": _slowest(verb, lives, heard, positions),
    }


def _slowest(
    verb: str,
    lives: Sequence[Life],
    heard: Mapping[str, Heard],
    positions: Sequence[tuple[int, float]],
) -> dict[str, float]:
    vm, times = max(lives, key=lambda life: life[1][verb].seen - life[1][verb].sent)
    return {name: _ms([seconds]) for name, seconds in stages(times[verb], heard[vm], positions).items()}


def stages(times: Times, heard: Heard, positions: Sequence[tuple[int, float]]) -> dict[str, float]:
    """The seconds of each stage, in their order; a stage that was not heard is left out, and counts to the next one.

    `positions`: when the read models have reached which position, in order.
    """
    events = [event for event in heard.events if times.sent <= event.stored <= times.seen]
    if not events:
        return {}
    first, *between, last = events if len(events) > 1 else [events[0], events[0]]
    moments = [("decided", first.made), ("appended", first.stored)]
    if (placed := next(iter(between), None)) is not None:
        moments += [("placement decided", placed.made), ("placed", placed.stored)]
    wanted = next((moment for moment in heard.wanted if moments[-1][1] <= moment <= last.stored), None)
    if wanted is not None:
        moments.append(("wanted", wanted))
        reports = [one for one in heard.reports if wanted <= one.made and one.stored <= last.made]
        if reports:
            moments += [("reported", reports[-1].made), ("report stored", reports[-1].stored)]
    if last is not first:
        moments += [("result decided", last.made), ("result appended", last.stored)]
    shown = next((moment for position, moment in positions if position >= last.position), None)
    if shown is not None and shown <= times.seen:
        moments.append(("in read model", shown))
    moments.append(("seen", times.seen))
    found, before = {}, times.sent
    for name, moment in moments:
        found[name], before = moment - before, moment
    return found


def _total(lives: Sequence[Life], verb: str) -> float:
    return statistics.median(times[verb].seen - times[verb].sent for _, times in lives)


def _ms(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1e3, 2)
