"""What it costs a node to know what its guests use: samples, scrapes of Prometheus, and requests for series.

The node's parts for this run in this process, as in `nebula node`: the sampler with its file, the listener, and the
answers on a bus of its own. One sample, one scrape and one request are repeated, and the CPU time of the process is
measured, with its threads and the clients in it. `cores` is what they take at their usual rates: a sample each 30 s, a
scrape each 15 s, a request for an hour each 10 s. The goal is 0.01 with 100 VMs.

The floor is the least that a sample needs: the question to the hypervisor. Guests are simulated; then they are those of
libvirt's test driver, which knows little of them.
"""

import argparse
import asyncio
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import libvirt
import nats
from nats.aio.client import Client

from domain.contract import Desired, UsageQuestion, Wanted
from domain.guest_usage import Totals
from node_daemon.asks.answers import Answers
from node_daemon.hypervisor.hypervisor import Boot, Hypervisor
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from node_daemon.storage.disks import Disks
from node_daemon.usage import metrics
from node_daemon.usage.host import Host
from node_daemon.usage.listener import Listener
from node_daemon.usage.sampler import Sampler, Sampling
from node_daemon.usage.series import RECORDS, Record, Series
from runtime import subjects
from runtime.local.servers import start_nats
from runtime.tasks.tasks import end

INTERVAL, SCRAPE, ASK = 30.0, 15.0, 10.0
GOAL = 0.01
TEST = "test:///default"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vms", type=int, default=100, help="guests of the node (100)")
    parser.add_argument("--rounds", type=int, default=40, help="samples, scrapes and requests of each kind (40)")


async def measure(vms: int = 100, rounds: int = 40) -> dict[str, Any]:
    found: dict[str, Any] = {"vms": vms, "goal_cores": GOAL}
    with tempfile.TemporaryDirectory() as home:
        server = await start_nats(Path(home))
        connection = libvirt.open(TEST)  # the driver forgets its guests with the last connection
        client = await nats.connect(server.url)
        try:
            driver = LibvirtHypervisor(TEST, "default", "test", 60)
            for name, hypervisor in (("simulated", Simulator(SimulatedHost())), ("libvirt_test", driver)):
                folder = Path(home) / name
                folder.mkdir()
                found |= {
                    f"{name}_{key}": value for key, value in (await of(hypervisor, client, folder, vms, rounds)).items()
                }
            driver.close()
        finally:
            await client.close()
            connection.close()
            await server.stop()
    found["met"] = all(found[f"{name}_cores"] <= GOAL for name in ("simulated", "libvirt_test"))
    return found


async def of(hypervisor: Hypervisor, client: Client, folder: Path, vms: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of CPU time of each kind of work, and the share of a core that they take together."""
    name, ids = f"bench-{uuid.uuid4().hex[:8]}", [str(uuid.uuid4()) for _ in range(vms)]
    for vm in ids:
        await hypervisor.start(boot(name, vm))
    clock = [time.time()]
    series = Series(folder / "usage.series")
    past = [Record(clock[0] - INTERVAL * each, each == RECORDS, Totals(*[10**9] * 7)) for each in range(RECORDS, 0, -1)]
    for record in past:
        series.append([(ids[0], record)])
    clocks = (lambda: clock[0], lambda: clock[0])
    sampler = Sampler(name, INTERVAL, hypervisor.usage, Host(folder).usage, series, *clocks)
    sampler.projects = lambda: dict.fromkeys(ids, "web")
    sampling = Sampling(INTERVAL)
    sampling.samplers.append(sampler)

    async def sample() -> None:
        clock[0] += INTERVAL
        await sampler.sample()

    async def ask(seconds: float, points: int) -> None:
        question = UsageQuestion(vm=ids[0], seconds=seconds, points=points).model_dump_json().encode()
        reply = await client.request(subjects.ask(name, "usage"), question, timeout=60)
        assert b'"ok"' in reply.data

    await sample()
    newest = sampler.newest
    assert newest is not None
    listener = Listener("127.0.0.1", 0, partial(metrics.text, [newest], newest.at, INTERVAL))
    serving = [
        asyncio.create_task(listener.run()),
        asyncio.create_task(Answers(client, name, Disks(folder), hypervisor, sampler=sampler).serve()),
    ]
    while listener.port is None:  # noqa: ASYNC110  (a moment)
        await asyncio.sleep(0.01)
    try:
        floor = await cpu(hypervisor.usage, rounds)
        taken = await cpu(sample, rounds)
        scraped = await cpu(partial(scrape, listener.port), rounds)
        hour, day = await cpu(partial(ask, 3600, 120), rounds), await cpu(partial(ask, 86400, 500), rounds)
    finally:
        await end(serving)
    return {
        "floor_ms": round(floor, 2),
        "sample_ms": round(taken, 2),
        "sample_ratio": round(taken / floor, 2),
        "scrape_ms": round(scraped, 2),
        "ask_hour_ms": round(hour, 2),
        "ask_day_ms": round(day, 2),
        "cores": round((taken / INTERVAL + scraped / SCRAPE + hour / ASK) / 1000, 5),
        "file_mib": round((folder / "usage.series").stat().st_blocks * 512 / 2**20, 2),
    }


async def cpu(work: Callable[[], Awaitable[object]], rounds: int) -> float:
    """Milliseconds of CPU time of this process for one of so many."""
    await work()
    began = time.process_time()
    for _ in range(rounds):
        await work()
    return (time.process_time() - began) / rounds * 1000


async def scrape(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


def boot(node: str, vm: str) -> Boot:
    wanted = Wanted(
        **{"vm": vm, "project": "web", "name": "web", "node": node, "epoch": 1, "generation": 1, "boots": 1},
        **{"desired": Desired.ON, "vcpus": 1, "memory_mib": 64, "disk_gib": 1},
        seed_url="http://192.168.122.1:8775/seed/secret/",
        mac="52:54:00:" + ":".join(vm[each : each + 2] for each in (0, 2, 4)),
    )
    return Boot(wanted, f"/{vm}.qcow2", "/base", "raw", f"/{vm}.log", "host-boot")
