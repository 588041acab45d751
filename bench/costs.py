"""Where the microseconds of a create go: CPU time per create of each process, and of the steps in gateway and handlers.

Creates over HTTP, as `bench commands` sends them. The CPU time of each process is read from the kernel. Gateway and
handlers are interrupted each millisecond of theirs, which shows the shares of their steps and costs about 1 %. CPU time
says more than creates per second where other programs run as well. The floor is a durable publish by bare nats-py in
the same run.
"""

import argparse
import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

from bench import commands
from bench.cloud import Cloud, servers
from bench.sampling import STEPS

WARM = 500


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=4000, help="number of creates (4000)")
    parser.add_argument("--in-flight", type=int, default=commands.IN_FLIGHT, help="creates in flight (64)")


async def measure(count: int = 4000, in_flight: int = commands.IN_FLIGHT) -> dict[str, Any]:
    async with servers(None) as made:
        files = {role: made.home / f"{role}.samples" for role in STEPS}
        for role, file in files.items():
            await made.start(role, program=("-m", "bench.sampling", role, str(file)))
        await made.start("projections")
        await made.healthy()
        await made.prepare()
        await commands.creates(made, WARM, in_flight)
        publish = await spent(made, commands.raw(made, count, in_flight), count)
        await counts_of(made, files)
        create = await spent(made, commands.creates(made, count, in_flight), count)
        samples = await counts_of(made, files)
    found: dict[str, Any] = {"in_flight": in_flight}
    found |= {f"create_us_{name}": round(us) for name, us in create.items()}
    found["create_us"] = round(sum(create.values()))
    found["publish_us"] = round(publish["nats"] + publish["client"])
    found["ratio"] = round(found["publish_us"] / found["create_us"], 3)
    for role, counts in samples.items():
        each = create[role] / max(1, sum(counts.values()))
        found[f"{role}_steps_us"] = {name: round(n * each, 1) for name, n in Counter(counts).most_common()}
    return found


async def spent(made: Cloud, work: Awaitable[object], count: int) -> dict[str, float]:
    """Microseconds of CPU time of each process, and of this one (`client`), for each of `count` pieces of work."""
    pids = {name: child.pid for name, child in made.processes.items()}
    assert made.servers is not None
    pids["nats"] = made.servers.nats.child.pid
    before, mine = {name: running(pid) for name, pid in pids.items()}, time.process_time()
    await work
    found = {name: (running(pid) - before[name]) / count * 1e6 for name, pid in pids.items()}
    return {**found, "client": (time.process_time() - mine) / count * 1e6}


def running(pid: int) -> float:
    """Seconds for which the threads of a process ran; `/proc/PID/stat` counts in steps of 10 ms."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def counts_of(made: Cloud, files: Mapping[str, Path]) -> dict[str, dict[str, int]]:
    """The samples of each role since the last call."""
    found: dict[str, dict[str, int]] = {}
    for role, file in files.items():
        file.unlink(missing_ok=True)
        os.kill(made.processes[role].pid, signal.SIGUSR2)
    for role, file in files.items():
        for _ in range(1500):
            if file.exists():
                break
            await asyncio.sleep(0.02)
        found[role] = json.loads(file.read_bytes())
    return found
