"""One run: a cluster in namespaces, tenants, feeds, faults one after the other, and the checks in the end."""

import asyncio
import os
import random
import ssl
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
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
from tests.chaos.feeds import Feed
from tests.cluster import checks
from tests.cluster.bed import Bed, bed
from tests.cluster.faults import FAULTS
from tests.cluster.tenants import NODE_MEMORY_MIB, Tally, Tenant, longest_gap, look
from tests.e2e.platform import TERMINAL
from tests.node_daemon.documents import boot_disk
from tests.soak.feed import Reader
from tests.waiting import eventually

TENANTS, MOST_VMS = 6, 8
#: Seconds until everything has to be as it should after the last fault.
QUIET = 180.0
QUICK = '{"call":0.002,"image":0.2,"boot":0.5,"lease":0.2,"shutdown":0.3}'
Say = Callable[[str], None]


@dataclass
class Figures:
    """`unavailable`: for each class, seconds without an accepted command (and without an answered list) each time."""

    seed: int
    unavailable: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    accepted: int = 0
    again: int = 0
    events: int = 0
    vms: int = 0
    quiet_after: float = 0.0
    violations: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "ok": not self.violations,
            "seed": self.seed,
            "faults": sum(map(len, self.unavailable.values())),
            "commands_accepted": self.accepted,
            "sent_again": self.again,
            "events": self.events,
            "quiet_after_seconds": round(self.quiet_after, 1),
            "unavailable_seconds": {
                name: {
                    "times": len(found),
                    "commands_p50": round(sorted(one for one, _ in found)[len(found) // 2], 1),
                    "commands_max": round(max(one for one, _ in found), 1),
                    "reads_max": round(max(other for _, other in found), 1),
                }
                for name, found in sorted(self.unavailable.items())
            },
            "violations": self.violations[:100],
        }


@asynccontextmanager
async def prepared(home: Path, nodes: int) -> AsyncIterator[Bed]:
    """A cluster in namespaces, with an image and a project."""
    async with namespaces(names(simulated=True)) as network:
        more = {
            "IMAGE_PATHS": str(home),
            "IMAGE_HOSTS": "127.0.0.1",
            "SIMULATE_SECONDS": QUICK,
            "SIMULATE_MEMORY_MIB": str(NODE_MEMORY_MIB),
            "SIMULATE_PHONE_HOME": "false",
            "HEARTBEAT_SECONDS": "1",
            "LOG_FORMAT": "text",
        }
        async with bed(home, network, PLACES, simulate=nodes, **more) as made:
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


async def alive(http: httpx.AsyncClient, nodes: int) -> bool:
    return len((await http.get("/v1/nodes")).json().get("items", [])) == nodes


def client(made: Bed) -> httpx.AsyncClient:
    token = (made.home / "admin.token").read_text().strip()
    trust = ssl.create_default_context(cafile=str(made.cluster.ca))
    headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
    return httpx.AsyncClient(base_url=made.cluster.url, headers=headers, timeout=15, verify=trust, trust_env=False)


async def run(home: Path, seed: int, seconds: float, classes: Sequence[str], nodes: int, say: Say) -> Figures:
    """Faults of these classes in turn for so long, at least one of each; then compare."""
    figures, tally, chance = Figures(seed), Tally(), random.Random(f"{seed} faults")
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(prepared(home, nodes))
        stop = asyncio.Event()
        https = [await stack.enter_async_context(client(made)) for _ in range(TENANTS + 1)]
        tenants = [Tenant(http, f"{seed} {number}", tally, MOST_VMS) for number, http in enumerate(https[1:])]
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
            until = time.monotonic() + seconds
            bag: list[str] = []
            left = set(classes)
            while time.monotonic() < until or left:
                bag = bag or chance.sample(list(classes), len(classes))
                name = bag.pop()
                left.discard(name)
                await one(made, name, chance, tally, figures, say)
        finally:
            stop.set()
            await end([reading])
        await asyncio.wait_for(asyncio.gather(*working), 120)
        figures.accepted, figures.again = len(tally.operations), tally.again
        figures.violations += tally.wrong
        await compare(made, nodes, tally, feeds, reader, figures, say)
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


# ── in the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def compare(
    made: Bed, nodes: int, tally: Tally, feeds: list[Feed], reader: Reader, figures: Figures, say: Say
) -> None:
    """Wait until all is quiet, then look at everything."""
    began = time.monotonic()
    say(f"{len(tally.operations)} commands accepted; waiting until all operations have ended")
    async with client(made) as http:
        open_: list[str] = list(tally.operations)
        while open_ and time.monotonic() < began + QUIET:
            still: list[str] = []
            for operation in open_:
                status = await status_of(http, operation)
                if status not in TERMINAL:
                    still.append(f"{operation}: {status}")
            open_ = [one.split(":")[0] for one in still]
            if open_:
                await asyncio.sleep(1)
        figures.violations += [f"operation {each} has not ended" for each in open_]
    figures.quiet_after = time.monotonic() - began
    found = await checks.logs(made)
    events = next(iter(found.values()))
    figures.events = len(events)
    figures.violations += checks.same_everywhere(found)
    figures.violations += checks.kept(events, tally.operations)
    figures.violations += checks.within_capacity(events)
    figures.violations += checks.on_one_node(made, nodes)
    positions = [one.position for one in events]
    for feed in feeds:
        await feed.reach(positions[-1], 30)
        seen = [entry.position for entry in feed.saw if entry.position <= positions[-1]]
        if seen != positions:
            figures.violations.append(f"feed {feed.name} has {len(seen)} events of {len(positions)}")
    figures.violations += reader.broken
    figures.violations += await verified(made)


async def status_of(http: httpx.AsyncClient, operation: str) -> str:
    try:
        answer = await http.get(f"/v1/operations/{operation}")
    except httpx.TransportError as error:
        return repr(error)
    return str(answer.json().get("status")) if answer.is_success else f"{answer.status_code}"


async def verified(made: Bed) -> list[str]:
    """What `nebula verify` says of the log and of the read models."""
    wrong = []
    host = made.cluster.network.host("b")
    for what, role in (("log", "handlers"), ("views", "projections")):
        environment = made.cluster.environment(role, host) | {"NEBULA_LOG_LEVEL": "warning"}
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", str(host.namespace), sys.executable, "-m", "cli.main", "verify", what),
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        if process.returncode:
            wrong.append(f"nebula verify {what}: {out.decode()[-600:]}")
    return wrong
