"""What the benchmarks with many simulated nodes share: a cloud with a fleet, its VMs, and what all of it costs."""

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import psycopg

from bench.cloud import IMAGE, PROJECT, Cloud, cloud
from bench.http import Connection
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import SIMULATION, SYSTEM
from runtime.bus.login import login
from runtime.settings import Common
from runtime.tasks.tasks import end

VMS = f"/v1/projects/{PROJECT}/vms"
SIZE = {"vcpus": 1, "memory_mib": 64, "disk_gib": 1}
IN_FLIGHT = 64
ROLES = ("gateway", "handlers", "projections")
TICKS = os.sysconf("SC_CLK_TCK")
NO_DELAYS = json.dumps(dict.fromkeys(("call", "image", "boot", "lease", "shutdown", "memory", "reboot"), 0))
#: Seconds in which a step of a benchmark has to make some progress, and between two lines about it.
PATIENCE, TELL = 120.0, 5.0


class Progress:
    """Tells on stderr, every few seconds, how many of all are done. Raises RuntimeError if there are no more for
    PATIENCE seconds, or if a process has ended meanwhile; the text says what was waited for.
    """

    def __init__(self, goal: int, what: str, made: Cloud | None = None) -> None:
        self._goal, self._what, self._made = goal, what, made
        self._last = -1
        self.started = self._moved = self._said = time.perf_counter()

    def note(self, number: int) -> None:
        now = time.perf_counter()
        for child in self._made.processes.values() if self._made is not None else ():
            if not child.running:
                raise child.failure(f"ended while {number} of {self._goal} {self._what}")
        if number != self._last:
            self._last, self._moved = number, now
        seconds = round(now - self.started)
        if now - self._said > TELL:
            self._said = now
            tell(f"{seconds:4} s  {number} of {self._goal} {self._what}")
        if now - self._moved > PATIENCE:
            still = round(now - self._moved)
            raise RuntimeError(
                f"{number} of {self._goal} {self._what} after {seconds} s, and no more in the last {still} s"
            )


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


@asynccontextmanager
async def fleet(nodes: int, **settings: str) -> AsyncIterator[Cloud]:
    """A cloud with so many simulated nodes without delays, each with room for all VMs, all registered."""
    room = {"NEBULA_SIMULATE_VCPUS": "65536", "NEBULA_SIMULATE_MEMORY_MIB": str(2**30)}
    simulated = {
        **room,
        "NEBULA_SIMULATE": str(nodes),
        "NEBULA_SIMULATE_DISK_GIB": "1000000",
        "NEBULA_SIMULATE_SECONDS": NO_DELAYS,
        "NEBULA_SIMULATE_PHONE_HOME": "false",
    }
    async with cloud(ROLES, **settings) as made:
        await made.prepare()
        await made.start(SIMULATION, **simulated)
        await until(lambda: count(made, "nodes"), nodes, "nodes are registered", made)
        yield made


async def count(made: Cloud, table: str, where: str = "true") -> int:
    """The number of rows of a read model."""
    async with await psycopg.AsyncConnection.connect(made.env["NEBULA_POSTGRES_DSN"]) as connection:
        cursor = await connection.execute(f"SELECT count(*) FROM nebula.{table} WHERE {where}")
        row = await cursor.fetchone()
    return int(row[0]) if row is not None else 0


async def until(measure: Callable[[], Awaitable[int]], goal: int, what: str, made: Cloud | None = None) -> float:
    """Wait until the number is reached. Returns the seconds that it took. Raises as `Progress`."""
    progress = Progress(goal, what, made)
    while (now := await measure()) != goal:
        progress.note(now)
        await asyncio.sleep(0.2)
    return time.perf_counter() - progress.started


async def running(made: Cloud, number: int) -> float:
    return await until(lambda: count(made, "vms", "phase = 'running' AND NOT deleted"), number, "VMs run", made)


async def each(
    made: Cloud, items: Sequence[Any], do: Callable[[Connection, Any], Awaitable[None]], what: str = "are accepted"
) -> float:
    """Do something with all items, IN_FLIGHT at a time, each over a keep-alive connection. Returns the seconds.

    Raises as `Progress`.
    """
    left, done = iter(items), 0
    progress = Progress(len(items), what, made)

    async def worker() -> None:
        nonlocal done
        async with made.connection() as http:
            for item in left:
                await do(http, item)
                done += 1

    async def watch() -> None:
        while True:
            progress.note(done)
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    working = [asyncio.create_task(worker()) for _ in range(IN_FLIGHT)]
    try:
        busy = {watching, *working}
        while busy != {watching}:
            ended, busy = await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
    finally:
        await end([watching, *working])
    return time.perf_counter() - progress.started


async def create(http: Connection, ids: list[str]) -> None:
    key = str(uuid.uuid4())
    body = {"name": "fleet", "image": IMAGE, **SIZE}
    ids.append((await accepted(http, "POST", VMS, body, key))["vm"]["id"])


async def delete(http: Connection, vm: str) -> None:
    await accepted(http, "DELETE", f"{VMS}/{vm}", None, str(uuid.uuid4()))


async def accepted(http: Connection, method: str, path: str, body: Any, key: str) -> Any:
    """The answer of an accepted command. It is tried again while the log is unavailable, as on a busy disk."""
    started = time.perf_counter()
    while True:
        answer = await http.request(method, path, body, {"Idempotency-Key": key})
        if answer.status == 202:
            return answer.json()
        if answer.status != 503 or time.perf_counter() - started > PATIENCE:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        await asyncio.sleep(0.2)


def pids(made: Cloud) -> dict[str, int]:
    """The processes of all roles, and of the servers."""
    assert made.servers is not None
    servers = {"nats": made.servers.nats.pid, "postgres": made.servers.postgres.pid}
    return {name: child.pid for name, child in made.processes.items()} | servers


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, its children and the ended children of all of them."""
    spent, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        each_ = int(stat.parent.name)
        parents[each_] = int(fields[1])
        spent[each_] = sum(map(int, fields[11:15])) / TICKS
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(spent.get(each_, 0.0) for each_ in family)


class Cpu:
    """CPU seconds of each role since it was made."""

    def __init__(self, made: Cloud) -> None:
        self._pids = pids(made)
        self._before = self._now()
        self._since = time.perf_counter()

    def _now(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self._pids.items()}

    def seconds(self) -> dict[str, float]:
        now = self._now()
        return {name: now[name] - before for name, before in self._before.items()}

    def cores(self) -> dict[str, float]:
        """The share of a core that each role used."""
        took = time.perf_counter() - self._since
        return {name: round(spent / took, 3) for name, spent in self.seconds().items()}


async def messages(made: Cloud) -> int:
    """The number of messages that the server has received from clients."""
    mine = Common(nats_creds=Authority(made.home).file(SYSTEM))
    nc = await nats.connect(made.nats_url, **login(mine).options)
    try:
        answer = json.loads((await nc.request("$SYS.REQ.SERVER.PING.STATSZ", b"", timeout=10)).data)
    finally:
        await nc.close()
    return int(answer["statsz"]["received"]["msgs"])


async def stored(made: Cloud, stream: str) -> int:
    """The number of messages that a stream has stored since it was made."""
    nc = await made.bus()
    try:
        return int((await nc.jetstream().stream_info(stream)).state.last_seq)
    finally:
        await nc.close()
