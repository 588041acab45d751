"""The classes of faults. Each is a context: it is injected at the begin and healed at the end. It yields what it does.

Faults of the network are rules of nftables in the namespaces of the hosts. This kernel has no netem: packets are lost
at random, and queued (`tbf`), which delays them. `shaper.py` lets them come in another order.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from cli.local.cluster.cluster import NODES, SERVERS
from cli.local.cluster.network import Host, Network, command
from runtime import subjects
from runtime.local import copies
from runtime.local.child import ServerError
from tests import small_disk
from tests.cluster import clock, shaper
from tests.cluster.bed import Bed
from tests.processes import children_of
from tests.waiting import eventually

CLOCK_SECONDS = 600
#: Size of the disk of each host.
DISK_MIB = 4096
Fault = Callable[[Bed, random.Random], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def leader_killed(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    leader = await eventually(bed.leader, "the log has a leader", 60)
    await bed.cluster.stop_server(leader)
    try:
        yield f"server {leader}, the leader of the log, is killed"
    finally:
        await bed.cluster.start_server(leader)


@asynccontextmanager
async def all_killed(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    """All three at the same moment. They are started again by what keeps them."""
    for server in bed.cluster.servers.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGKILL)
    yield "all three servers are killed at the same moment"


@asynccontextmanager
async def role_killed(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    name, pid = chance.choice(sorted(bed.cluster.roles.pids.items()))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    yield f"{name} is killed"


@asynccontextmanager
async def server_stopped(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    """SIGSTOP: it is there, and does nothing."""
    leader = await eventually(bed.leader, "the log has a leader", 60)
    pid = bed.cluster.servers[leader].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield f"server {leader}, the leader of the log, stands still"
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def role_stopped(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    name, pid = chance.choice(sorted(each for each in bed.cluster.roles.pids.items() if "authority" not in each[0]))
    os.kill(pid, signal.SIGSTOP)
    try:
        yield f"{name} stands still"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# ── network ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def minority_cut_off(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    """One host reaches nobody, with all that runs on it."""
    name = chance.choice(SERVERS)
    async with filtered([bed.cluster.network.host(name)], "drop"):
        yield f"host {name} is cut off"


@asynccontextmanager
async def leader_cut_off(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    name = await eventually(bed.leader, "the log has a leader", 60)
    async with filtered([bed.cluster.network.host(name)], "drop"):
        yield f"host {name}, with the leader of the log, is cut off"


@asynccontextmanager
async def majority_cut_off(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    """Two hosts reach nobody: no two servers reach each other."""
    names = chance.sample(SERVERS, 2)
    async with filtered([bed.cluster.network.host(name) for name in names], "drop"):
        yield f"hosts {' and '.join(names)} are cut off"


@asynccontextmanager
async def one_way_loss(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    """One host gets nothing from another one, which gets everything from it."""
    deaf, unheard = chance.sample(SERVERS, 2)
    there = bed.cluster.network.host(unheard).address
    async with filtered([bed.cluster.network.host(deaf)], f"ip saddr {there} drop", outgoing=False):
        yield f"host {deaf} gets nothing from host {unheard}"


@asynccontextmanager
async def packets_lost(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    share = chance.choice([5, 10, 20])
    hosts = [bed.cluster.network.host(name) for name in SERVERS]
    async with filtered(hosts, f"numgen random mod 100 < {share} drop", outgoing=False):
        yield f"{share} % of all packets are lost"


@asynccontextmanager
async def slow(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    """A narrow link: packets wait in a queue, for up to half a second."""
    name = chance.choice(SERVERS)
    within = ["ip", "netns", "exec", str(bed.cluster.network.host(name).namespace), "tc", "qdisc"]
    await command(*within, "add", "dev", "eth0", "root", "tbf", "rate", "2mbit", "burst", "16kb", "latency", "500ms")
    try:
        yield f"host {name} has a link of 2 Mbit/s"
    finally:
        await command(*within, "del", "dev", "eth0", "root")


@asynccontextmanager
async def reordered(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    """Packets from and to one host come late, and in another order."""
    name, most = chance.choice(SERVERS), chance.choice([0.01, 0.05, 0.2])
    async with shaped(bed.cluster.network, name, most):
        yield f"each packet of host {name} is held for up to {most} s"


@asynccontextmanager
async def shaped(network: Network, name: str, most: float) -> AsyncIterator[None]:
    """Put a process between a host and the bridge that holds each packet for up to so many seconds."""
    hub, port = network.hub, f"to-{name}"
    await command("ip", "-n", hub, "link", "add", "late", "type", "veth", "peer", "name", "plug")
    program = ["ip", "netns", "exec", hub, sys.executable, "-m", "tests.cluster.shaper", port, "late", str(most)]
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).strip() == shaper.READY.encode()
        for link, *how in ((port, "nomaster"), ("plug", "master", "bridge"), ("plug", "up"), ("late", "up")):
            await command("ip", "-n", hub, "link", "set", link, *how)
        yield
    finally:
        await command("ip", "-n", hub, "link", "set", port, "master", "bridge")
        process.kill()
        await process.wait()
        await command("ip", "-n", hub, "link", "delete", "late")


@asynccontextmanager
async def filtered(hosts: list[Host], rule: str, *, outgoing: bool = True) -> AsyncIterator[None]:
    """Apply a rule to the packets of these hosts; not to those that a host sends to itself."""
    chains = ["input", *(["output"] if outgoing else [])]
    try:
        for host in hosts:
            text = "".join(
                f"chain {chain} {{ type filter hook {chain} priority 0; {side} != lo {rule}; }}\n"
                for chain in chains
                for side in ("iifname" if chain == "input" else "oifname",)
            )
            await command("ip", "netns", "exec", str(host.namespace), "nft", f"table inet chaos {{\n{text}}}")
        yield
    finally:
        for host in hosts:
            with contextlib.suppress(ServerError):
                await command("ip", "netns", "exec", str(host.namespace), "nft", "delete table inet chaos")


# ── clocks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def clock_of(kind: str) -> Fault:
    """The clock of one process of this kind jumps by ten minutes, to either side, and back in the end."""

    @asynccontextmanager
    async def jumped(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
        name = chance.choice(sorted(each for each in bed.cluster.processes if each.startswith(f"{kind}-")))
        if kind == "nats" and (leader := await bed.leader()):
            name = f"nats-{leader}"
        seconds = chance.choice([CLOCK_SECONDS, -CLOCK_SECONDS])
        processes = [number for pid in [bed.cluster.processes[name]] for number in (pid, *children_of(pid))]
        for number in processes:
            with contextlib.suppress(OSError):
                clock.set_off(number, seconds)
        try:
            yield f"the clock of {name} is {seconds:+d} s off"
        finally:
            for number in processes:  # it may have ended
                with contextlib.suppress(OSError):
                    clock.set_off(number, 0)

    return jumped


# ── disks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def replaced(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    """A server loses its disk, and is replaced by an empty one."""
    name = chance.choice(SERVERS)
    await bed.cluster.stop_server(name)
    shutil.rmtree(bed.cluster.store(name) / "jetstream")
    await bed.cluster.start_server(name)
    yield f"server {name} lost all its streams"


@asynccontextmanager
async def block_damaged(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    """One server's copy of the log is damaged while it is down."""
    name = chance.choice(SERVERS)
    await bed.cluster.stop_server(name)
    blocks = sorted(blocks_of(bed.cluster.store(name)))
    how = chance.choice(["truncated", "flipped", "removed"])
    for block in chance.sample(blocks, min(1, len(blocks))):
        size = block.stat().st_size
        match how:
            case "truncated":
                os.truncate(block, chance.randrange(size // 2, size) if size else 0)
            case "flipped":
                with block.open("r+b") as file:
                    place = chance.randrange(max(size, 1))
                    file.seek(place)
                    byte = file.read(1) or b"\0"
                    file.seek(place)
                    file.write(bytes([byte[0] ^ 1 << chance.randrange(8)]))
            case _:
                block.unlink()
        how += f" ({block.name} of {size} bytes)"
    if copies.faults(bed.cluster.store(name)):  # an operator would do the same, as the server does not start
        shutil.rmtree(bed.cluster.store(name) / "jetstream")
        how += ", and it is replaced"
    await bed.cluster.start_server(name)
    yield f"a block of the log on server {name} is {how}"


def blocks_of(store: Path) -> Iterator[Path]:
    return store.glob(f"jetstream/*/streams/{subjects.EVENTS}/msgs/*.blk")


def disks_full(which: str) -> Fault:
    """The disks of some hosts have no room: for the log, the database, and the files of each role there."""

    @asynccontextmanager
    async def full(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
        leader = await eventually(bed.leader, "the log has a leader", 60)
        hosts = {"leader": [leader], "database": [bed.cluster.pair.primary], "all": SERVERS, "nodes": [NODES]}[which]
        disks = [bed.home / "hosts" / name for name in hosts]
        for disk in disks:
            small_disk.shrink(disk)
        try:
            yield f"the disk of {', '.join(hosts)} is full"
        finally:
            for disk in disks:
                small_disk.resize(disk, DISK_MIB)

    return full


# ── Postgres ────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def standby_promoted(bed: Bed, chance: random.Random) -> AsyncIterator[str]:
    """The primary is killed, and its standby promoted. The old primary becomes the standby."""
    pair = bed.cluster.pair
    old = pair.primary
    await pair.kill(old)
    await asyncio.sleep(chance.uniform(0, 3))
    await pair.promote()
    try:
        yield f"Postgres on host {old} is killed, and its standby promoted"
    finally:
        await pair.copy()


#: Kinds of processes, each with a clock.
KINDS = ("nats", "postgres", "handlers", "gateway", "projections", "guest-data", "authority", "simulation")
#: All classes, and for how many seconds each holds, least and most.
FAULTS: dict[str, tuple[Fault, float, float]] = {
    "leader-killed": (leader_killed, 8, 12),
    "all-killed": (all_killed, 0, 0),
    "role-killed": (role_killed, 0, 0),
    "server-stopped": (server_stopped, 10, 30),
    "role-stopped": (role_stopped, 10, 30),
    "minority-cut-off": (minority_cut_off, 10, 20),
    "leader-cut-off": (leader_cut_off, 10, 20),
    "majority-cut-off": (majority_cut_off, 10, 20),
    "one-way-loss": (one_way_loss, 10, 20),
    "packets-lost": (packets_lost, 10, 20),
    "slow": (slow, 10, 20),
    "reordered": (reordered, 10, 20),
    "replaced": (replaced, 0, 0),
    "block-damaged": (block_damaged, 0, 0),
    "standby-promoted": (standby_promoted, 2, 5),
    **{f"disk-full-{which}": (disks_full(which), 8, 15) for which in ("leader", "database", "all", "nodes")},
    **{f"clock-of-{kind}": (clock_of(kind), 8, 15) for kind in KINDS},
}
