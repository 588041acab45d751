"""The CPU time of each role of a cloud with a fleet, and what a piece of work costs with all that follows from it."""

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.cloud import Cloud
from bench.fleet_parts import number, stored, until
from runtime import subjects

TICKS = os.sysconf("SC_CLK_TCK")
#: Seconds after which nothing is left to do that waits for a calm moment.
CALM = 5.0


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


def floor_ms() -> float:
    """Milliseconds of CPU time of a fixed piece of work: JSON and hashes, as the roles do."""
    body = {"id": "x" * 36, "state": {str(number): [number] * 8 for number in range(200)}}
    started = time.process_time()
    for _ in range(300):
        hashlib.sha256(json.dumps(json.loads(json.dumps(body))).encode()).digest()
    return (time.process_time() - started) * 1e3


async def shown(made: Cloud) -> int:
    """The position of the read models."""
    return await number(made, "SELECT position FROM nebula.checkpoint")


async def settled(made: Cloud, calm: float = CALM) -> None:
    """Wait until nothing is left to do: the read models of the present and of the past have the whole log, and handlers
    have packed the states of new VMs, for which they wait some seconds.
    """

    query = "SELECT least(n.position, p.position) FROM nebula.checkpoint n, nebula_past.checkpoint p"

    async def behind() -> int:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            return await stored(made, subjects.EVENTS) - await number(made, query)
        return -1  # the past is not made yet

    while True:
        await until(behind, 0, "events are left", made)
        await asyncio.sleep(calm)
        if await behind() == 0:
            return


@dataclass
class Settled:
    """What pieces of work cost with all that follows from them, without what the roles cost at rest.

    After each piece it waits until nothing is left to do, so a piece pays for its own rows of the past. Then it
    measures at rest, for `rest` seconds. What is subtracted is the mean of the two rests around a piece, for as long as
    it took: there are more VMs after it.
    """

    made: Cloud
    rest: float
    calm: float
    cores: dict[str, float]
    """Cores that each role used at the last rest."""

    @classmethod
    async def begin(cls, made: Cloud, rest: float) -> "Settled":
        """`rest`: seconds of each measure at rest."""
        new = cls(made, rest, min(CALM, rest), {})
        await new.settle()
        return new

    async def milliseconds(self, work: Callable[[], Awaitable[object]], pieces: int) -> dict[str, float]:
        """CPU time of each role for one of so many pieces of work."""
        before, cpu, started = self.cores, Cpu(self.made), time.perf_counter()
        await work()
        await settled(self.made, self.calm)
        spent, took = cpu.seconds(), time.perf_counter() - started
        await self.settle()
        rests = {name: (before[name] + cores) / 2 * took for name, cores in self.cores.items()}
        return {name: max(0.0, used - rests[name]) / pieces * 1e3 for name, used in spent.items()}

    async def settle(self) -> None:
        """Measure at rest anew, after other work."""
        await settled(self.made, self.calm)
        cpu = Cpu(self.made)
        await asyncio.sleep(self.rest)
        self.cores = cpu.cores()
