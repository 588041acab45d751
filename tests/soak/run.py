"""A cloud of simulated nodes and one real one, people at work on it, and processes that die."""

import asyncio
import contextlib
import hashlib
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nats.aio.client import Client

from domain.contract import Wanted
from eventstore.documents import Documents
from eventstore.log.store import PAGE, EventStore
from handlers.world.world import World
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import stored_domains
from node_daemon.simulation.simulated_storage import SimulatedDisks
from runtime import subjects
from tests.e2e.platform import TERMINAL, Platform, domains, platform
from tests.node_daemon.documents import boot_disk
from tests.soak.compare import Seen, differences
from tests.soak.feed import Reader
from tests.soak.people import Estate, Person, Tally
from tests.soak.weather import storm
from tests.waiting import eventually

PEOPLE = 12
REAL = "e2e"
ROLES = ("gateway", "handlers", "projections", "guest-data", "node", "nats", "postgres")
#: Seconds from the last kill until all has to be as it should.
QUIET = 240.0

Say = Callable[[str], None]


@dataclass
class Figures:
    seed: int
    seconds: float
    vms: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    again: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    events: int = 0
    fed: int = 0
    resumed: int = 0
    quiet_after: float = 0.0
    differences: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "commands_accepted": self.accepted.total(),
            "accepted": dict(self.accepted.most_common()),
            "refused": self.refused.total(),
            "sent_again": self.again,
            "kills": self.kills.total(),
            "killed": dict(self.kills.most_common()),
            "operations": dict(self.ended.most_common()),
            "vms_in_the_end": self.vms,
            "events": self.events,
            "fed": self.fed,
            "feed_resumed": self.resumed,
            "quiet_after_seconds": round(self.quiet_after, 1),
            "differences": len(self.differences),
        }


@dataclass(frozen=True)
class Plan:
    """`vms` on each of the simulated `nodes`, `real` ones on QEMU; `pause`: seconds between kills, least and most."""

    seed: int
    seconds: float
    nodes: int
    vms: int
    real: int
    pause: tuple[float, float]


async def run(plan: Plan, say: Say) -> Figures:
    """Let people and weather at it, then compare."""
    figures = Figures(plan.seed, plan.seconds)
    async with (
        platform(NEBULA_NODE_TIMEOUT="15", NEBULA_HEARTBEAT_SECONDS="1") as made,
        fleet(made, plan.nodes) as sims,
    ):
        estates = await prepare(made, plan.nodes * plan.vms, plan.real)
        tally, shared = Tally(), {estate.project: list[str]() for estate in estates}
        reader = Reader(made.client, estates[0].project)
        reading = asyncio.create_task(reader.run())
        telling = asyncio.create_task(tell(tally, say))
        until = time.monotonic() + plan.seconds
        pids: dict[str, Callable[[], int | None]] = {role: partial(made.pid, role) for role in ROLES}
        pids["simulated nodes"] = lambda: sims.pid
        people = [Person(made.client, estates, f"{plan.seed} {number}", tally) for number in range(PEOPLE)]
        kills, _ = await asyncio.gather(
            storm(pids, f"{plan.seed} storm", until, plan.pause),
            asyncio.gather(*(person.work(shared, until) for person in people)),
        )
        telling.cancel()
        say(f"{tally.accepted.total()} commands accepted, {kills.total()} kills; waiting until all is as it should be")
        figures.accepted, figures.refused, figures.again, figures.kills = (
            tally.accepted,
            tally.refused,
            tally.again,
            kills,
        )
        figures.differences += tally.violations
        quiet = time.monotonic()
        figures.differences += await settle(made, plan.nodes, tally, figures)
        figures.quiet_after = time.monotonic() - quiet
        figures.differences += await told(made, reader)
        figures.fed, figures.resumed = len(reader.seen), reader.resumed
        reading.cancel()
        figures.differences += await verified(made)
    return figures


async def tell(tally: Tally, say: Say) -> None:
    while True:
        await asyncio.sleep(10)
        say(f"{tally.accepted.total()} commands accepted, {tally.refused.total()} refused")


@dataclass
class Fleet:
    pid: int | None = None


@asynccontextmanager
async def fleet(made: Platform, nodes: int) -> AsyncIterator[Fleet]:
    """The simulated nodes' process, started again whenever it dies."""
    running = Fleet()
    quick = ("call=0.002", "image=0.2", "boot=0.5", "lease=0.2", "shutdown=0.3")
    options = [part for each in quick for part in ("--seconds", each)]
    command = [sys.executable, "-m", "cli.main", "node", "--simulate", str(nodes), "--region", "sim", *options]
    log = (made.home / "log" / "simulated.log").open("ab")

    async def keep() -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                *command, env={**made.env, "NEBULA_LOG_LEVEL": "warning"}, stdout=log, stderr=log
            )
            running.pid = process.pid
            try:
                await process.wait()
                await asyncio.sleep(0.2)
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                    await process.wait()

    keeping = asyncio.create_task(keep())
    try:
        yield running
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        log.close()


async def prepare(made: Platform, simulated: int, real: int) -> list[Estate]:
    """Projects and an image: an operating system of thirty bytes that hears the power button."""
    file = made.home / "button.raw"
    file.write_bytes(boot_disk())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    await made.succeed("POST", "/v1/images", {"id": "button", "source": str(file), "sha256": digest})
    region = next(n["region"] for n in (await made.call("GET", "/v1/nodes"))["items"] if n["id"] == REAL)
    estates = [Estate("soak", "sim", "button", 512, simulated)]
    if real:
        estates.append(Estate("soak-real", region, "button", 32, real))
    for estate in estates:
        await made.call("POST", "/v1/projects", {"id": estate.project, "name": estate.project})
    return estates


# ── in the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def settle(made: Platform, nodes: int, tally: Tally, figures: Figures) -> list[str]:
    """Wait until nothing differs; what does after all that time."""
    found: list[str] = ["not looked at"]
    deadline = time.monotonic() + QUIET
    while found and time.monotonic() < deadline:
        await asyncio.sleep(1)
        found = await look(made, nodes, figures)
    ends = await operations(made)
    statuses = [ends.get(operation, "unknown") for operation in tally.operations]
    figures.ended = Counter(statuses)
    found += [
        f"{verb} {operation} is {said}"
        for (operation, verb), said in zip(tally.operations.items(), statuses, strict=True)
        if said.partition(":")[0] not in TERMINAL
    ]
    return found


async def operations(made: Platform) -> dict[str, str]:
    """How each operation ended; with the reason, where it failed."""
    return {
        found["id"]: f"failed: {found['problem']['code']}" if found["status"] == "failed" else found["status"]
        for found in await listed(made, "/v1/operations")
    }


async def look(made: Platform, nodes: int, figures: Figures) -> list[str]:
    """One look at everything; what differs."""
    async with made.maintenance() as nc:
        world, events = await folded(nc)
        documents = await Documents(nc, subjects.WANTED).all(subjects.wanted_of())
    figures.events, figures.vms = events, len(list(world.vms()))
    shown = {
        vm["id"]: vm for project in ("soak", "soak-real") for vm in await listed(made, f"/v1/projects/{project}/vms")
    }
    wanted = {(w.node, w.vm): w for w in (Wanted.model_validate_json(d.body) for d in documents)}
    seen = Seen(world, shown, wanted, {}, {})
    here, disks = await on_qemu(made, world)
    seen.domains, seen.disks = {REAL: here}, {REAL: disks}
    host_store = HostStore(made.home / "simulated-sim" / "hosts.sqlite")
    for name in (f"sim-{number:03d}" for number in range(1, nodes + 1)):
        seen.domains[name] = stored_domains(host_store, name)
        seen.disks[name] = frozenset(disk.split("#")[0] for disk in SimulatedDisks(name, host_store).all())
    host_store.close()
    return differences(seen)


async def folded(nc: Client) -> tuple[World, int]:
    """The world as the log alone tells it, and how many events that took."""
    store, world, after = EventStore(nc), World(), 0
    while page := await store.read(after):
        for recorded in page:
            world.apply(recorded)
        after = page[-1].position
        if len(page) < PAGE:
            break
    return world, after


async def listed(made: Platform, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = await made.call("GET", f"{path}?limit=500{token}")
        found += page["items"]
        if page["next_page_token"] is None:
            return found
        token = f"&page_token={page['next_page_token']}"


async def on_qemu(made: Platform, world: World) -> tuple[dict[str, Have], frozenset[str]]:
    """What libvirt has of this platform, and whose files are there."""
    hypervisor = LibvirtHypervisor("qemu:///system", "default", "qemu", deadline=60)
    try:
        uuids = set(domains(made.home))
        have = {uuid: await hypervisor.look(uuid) for uuid in uuids}
    finally:
        hypervisor.close()
    folder = made.home / "node" / "disks"
    return have, frozenset(path.name.split(".")[0] for path in folder.iterdir()) if folder.exists() else frozenset()


async def told(made: Platform, reader: Reader) -> list[str]:
    """What the feed's reader missed, or got twice, or in another order. An event may still come while this looks."""
    expected: list[int] = []

    async def same() -> bool:
        nonlocal expected
        expected = await positions(made, reader.project)
        return reader.seen == expected

    try:
        await eventually(same, "the feed is read", 30)
    except AssertionError:
        return [*reader.broken, f"the feed told {len(reader.seen)} events of {len(expected)}"]
    return reader.broken


async def positions(made: Platform, project: str) -> list[int]:
    found = list[int]()
    async with made.maintenance() as nc:
        store = EventStore(nc)
        while page := await store.read(found[-1] if found else 0, subjects.events(project)):
            found += [recorded.position for recorded in page]
    return found


async def verified(made: Platform) -> list[str]:
    """What the operator's own commands say: the chain, and the read models against a replay."""
    found = []
    for what in ("log", "views"):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli.main",
            "verify",
            what,
            env=made.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        if process.returncode:
            found.append(f"nebula verify {what}: {out.decode()[-500:]}")
    return found
