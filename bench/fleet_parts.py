"""What the benchmarks with many simulated nodes share: a cloud with a fleet, its VMs, and what all of it costs."""

import asyncio
import contextlib
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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


@contextlib.asynccontextmanager
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
    return await number(made, f"SELECT count(*) FROM nebula.{table} WHERE {where}")


async def number(made: Cloud, query: str) -> int:
    """The one number that a query returns; 0 for none."""
    async with await psycopg.AsyncConnection.connect(made.env["NEBULA_POSTGRES_DSN"]) as connection:
        row = await (await connection.execute(query.encode())).fetchone()
    return int(row[0]) if row is not None else 0


async def until(measure: Callable[[], Awaitable[int]], goal: int, what: str, made: Cloud | None = None) -> float:
    """Wait until the number is reached. Returns the seconds that it took. Raises as `Progress`."""
    progress = Progress(goal, what, made)
    while (now := await measure()) != goal:
        progress.note(now)
        await asyncio.sleep(0.2)
    return time.perf_counter() - progress.started


async def running(made: Cloud, vms: int, after: int = 0) -> float:
    """Wait until so many VMs run that were created after a position."""
    return await _until(made, "phase = 'running'", after, vms, "VMs run")


async def deleted(made: Cloud, after: int = 0) -> float:
    """Wait until no VM is left of those that were created after a position."""
    return await _until(made, "true", after, 0, "VMs are left")


async def _until(made: Cloud, where: str, after: int, goal: int, what: str) -> float:
    """Wait until so many VMs are as they should be. It does not look at those from before: that would cost more and
    more in a long run.
    """
    query = f"""SELECT count(*) FROM (SELECT phase FROM nebula.vms
                WHERE project = %s AND NOT deleted AND created > %s ORDER BY created OFFSET 0) new WHERE {where}"""
    async with await psycopg.AsyncConnection.connect(made.env["NEBULA_POSTGRES_DSN"], autocommit=True) as connection:

        async def now() -> int:
            row = await (await connection.execute(query.encode(), [PROJECT, after])).fetchone()
            return int(row[0]) if row is not None else 0

        return await until(now, goal, what, made)


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
