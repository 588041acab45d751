"""One run: a cluster in namespaces, tenants, feeds, faults one after the other, and the checks in the end."""

import asyncio
import random
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cli.local.cluster.cluster import PLACES, names
from cli.local.cluster.network import namespaces
from runtime import subjects
from runtime.bus.accounts.table import GATEWAY, HANDLERS
from runtime.tasks.tasks import end
from tests import small_disk
from tests.chaos.feeds import Feed
from tests.cluster.bed import Bed, bed
from tests.cluster.ending import Say, client, compare
from tests.cluster.faults import DISK_MIB, FAULTS
from tests.cluster.figures import Figures
from tests.cluster.tenants import NODE_MEMORY_MIB, Tally, Tenant, longest_gap, look
from tests.node_daemon.documents import boot_disk
from tests.soak.feed import Reader
from tests.waiting import eventually

TENANTS, MOST_VMS = 6, 8
QUICK = '{"call":0.002,"image":0.2,"boot":0.5,"lease":0.2,"shutdown":0.3}'


@asynccontextmanager
async def prepared(
    home: Path, nodes: int, places: Mapping[str, Sequence[str]], kept: Callable[[], bool]
) -> AsyncIterator[Bed]:
    """A cluster in namespaces, with an image and a project. `kept`: asked in the end, whether to copy its disks."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(namespaces(names(simulated=True)))
        for host in network.hosts:
            disk = stack.enter_context(small_disk.mounted(home / "hosts" / host.name, DISK_MIB))
            stack.callback(copied_if, kept, disk, home / "kept" / host.name)
        more = {
            "IMAGE_PATHS": str(home),
            "IMAGE_HOSTS": "127.0.0.1",
            "SIMULATE_SECONDS": QUICK,
            "SIMULATE_MEMORY_MIB": str(NODE_MEMORY_MIB),
            "SIMULATE_PHONE_HOME": "false",
            "HEARTBEAT_SECONDS": "1",
            "LOG_FORMAT": "text",
        }
        async with bed(home, network, places, simulate=nodes, **more) as made:
            await eventually(made.decides, "handlers decide", 180)
            disk = home / "button.raw"
            disk.write_bytes(boot_disk())
            async with client(made) as http:

                async def done(path: str, body: dict[str, Any]) -> bool:
                    try:
                        answer = await http.post(path, json=body)
                    except httpx.TransportError:
                        return False
                    return answer.is_success or answer.status_code == 409

                await eventually(lambda: done("/v1/projects", {"id": "chaos", "name": "chaos"}), "a project", 120)
                await eventually(lambda: done("/v1/images", {"id": "button", "source": str(disk)}), "an image", 120)

                async def runs() -> bool:
                    return bool((await http.get("/v1/images/button")).json().get("phase") == "available")

                await eventually(runs, "the image is available", 120)
                await eventually(lambda: alive(http, nodes), "all nodes are there", 120)
            yield made


def copied_if(kept: Callable[[], bool], disk: Path, to: Path) -> None:
    if kept():
        shutil.copytree(disk, to, symlinks=True)


async def alive(http: httpx.AsyncClient, nodes: int) -> bool:
    return len((await http.get("/v1/nodes?limit=500")).json().get("items", [])) >= min(nodes, 500)


@dataclass(frozen=True)
class Plan:
    """`vms`: how many each of the tenants has at most. `places`: the hosts of each role. `full`: faults begin when all
    tenants have as many.
    """

    seed: int
    nodes: int
    tenants: int = TENANTS
    vms: int = MOST_VMS
    places: Mapping[str, Sequence[str]] = field(default_factory=lambda: PLACES)
    full: bool = False


#: Injects faults until its end.
Faults = Callable[[Bed, Tally, Figures, Say], Awaitable[None]]


async def in_turn(
    classes: Sequence[str], seed: int, seconds: float, times: int, made: Bed, tally: Tally, figures: Figures, say: Say
) -> None:
    """Each class at least so many times, in random order."""
    chance, bag, left = random.Random(f"{seed} faults"), list[str](), Counter(dict.fromkeys(classes, times))
    until = time.monotonic() + seconds
    while time.monotonic() < until or left.total():
        bag = bag or chance.sample(list(classes), len(classes))
        name = bag.pop()
        left -= Counter([name])
        await one(made, name, chance, tally, figures, say)


async def run(home: Path, plan: Plan, faults: Faults, say: Say) -> Figures:
    """Let tenants work while faults are injected, and then compare."""
    figures, tally = Figures(plan.seed), Tally()
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(prepared(home, plan.nodes, plan.places, lambda: not figures.kept))
        stop = asyncio.Event()
        https = [await stack.enter_async_context(client(made)) for _ in range(plan.tenants + 1)]
        tenants = [Tenant(http, f"{plan.seed} {number}", tally, plan.vms) for number, http in enumerate(https[1:])]
        if plan.full:
            say(f"{plan.tenants * plan.vms} VMs are created")
            await asyncio.gather(*(each.fill() for each in tenants))
        working = [asyncio.create_task(each.work(stop)) for each in tenants]
        working.append(asyncio.create_task(look(https[0], tally, stop)))
        reader = Reader(lambda: client(made), "chaos")
        reading = asyncio.create_task(reader.run())
        feeds = [
            Feed("handlers", await stack.enter_async_context(made.connected(HANDLERS))),
            Feed("gateway", await stack.enter_async_context(made.connected(GATEWAY))),
        ]
        for feed in feeds:
            stack.push_async_callback(feed.close)
        try:
            await accepts(tally, 20)
            await faults(made, tally, figures, say)
        finally:
            stop.set()
            await end([reading])
        await asyncio.wait_for(asyncio.gather(*working), 120)
        figures.accepted, figures.again = len(tally.operations), tally.again
        figures.slowest = max(tally.took, default=0.0)
        figures.violations += tally.wrong
        await compare(made, plan.nodes, tally, feeds, reader, figures, say)
    return figures


async def one(made: Bed, name: str, chance: random.Random, tally: Tally, figures: Figures, say: Say) -> None:
    """Inject a fault, hold it, heal it, and wait until commands are accepted and all copies are current."""
    fault, least, most = FAULTS[name]
    began = time.monotonic()
    async with fault(made, chance) as what:
        await asyncio.sleep(chance.uniform(least, most))
    await accepts(tally, 10)
    await eventually(lambda: is_current(made), "all servers have all of the log", 120)
    ended = time.monotonic()
    commands, reads = longest_gap(tally.times, began, ended), longest_gap(tally.reads, began, ended)
    figures.unavailable[name].append((commands, reads))
    lasted = f"no command for {commands:.1f} s, no list for {reads:.1f} s, over after {ended - began:.0f} s"
    say(f"{name:<18} {what}: {lasted}")


async def accepts(tally: Tally, more: int) -> None:
    wanted = len(tally.times) + more
    await eventually(lambda: len(tally.times) >= wanted, f"{more} more commands are answered", 120)


async def is_current(made: Bed) -> bool:
    """Whether no copy of the log is behind."""
    async with made.connected(HANDLERS) as nc:
        try:
            info = await nc.jetstream(timeout=2).stream_info(subjects.EVENTS)
        except Exception:  # there is no leader yet
            return False
    replicas = (info.cluster.replicas or []) if info.cluster else []
    return len(replicas) == 2 and all(copy.current and not copy.offline for copy in replicas)
