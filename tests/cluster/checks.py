"""Is what was promised in the log of every server, once; and do the nodes' disks say the same?"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from nats.errors import Error as NatsError

from cli.local.cluster.cluster import NODES, SERVERS
from domain.contract import Power
from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Stream
from handlers.world.world import World
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import stored_domains
from runtime import subjects
from runtime.bus import bus
from tests.cluster.bed import Bed
from tests.waiting import eventually

RATIO = 4.0
"""Virtual CPUs that may be reserved for each CPU of a host."""


#: Events that are read at the same time.
AT_ONCE = 64


async def logs(bed: Bed) -> dict[str, list[Recorded]]:
    """The log of now as each server has it on its own disk: each of them leads the stream for a while."""
    found: dict[str, list[Recorded]] = {}
    async with bed.connected("maintenance") as nc:
        stream = Stream(nc, subjects.EVENTS, timeout=20, event_keys=bed.keys)
        last = await stream.last_position()
        for name in SERVERS:
            await leads(bed, nc, name)
            events: dict[int, Recorded] = {}
            for first in range(0, last, AT_ONCE):  # one position has no event if a write has failed
                asks = (stream.next_of(">", position) for position in range(first, min(first + AT_ONCE, last)))
                events |= {one.position: one for one in await asyncio.gather(*asks) if one is not None}
            found[name] = [events[position] for position in sorted(events)]
    return found


async def leads(bed: Bed, nc: bus.Connection, name: str) -> None:
    """Make a server the leader of the log."""

    async def is_so() -> bool:
        if await bed.leader() == name:
            return True
        ask = json.dumps({"placement": {"preferred": name}}).encode()
        try:
            await nc.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{subjects.EVENTS}", ask, timeout=2)
        except (NatsError, OSError, TimeoutError):
            return False
        await asyncio.sleep(0.5)
        return False

    await eventually(is_so, f"server {name} leads the log", 60)


def same_everywhere(found: dict[str, list[Recorded]]) -> list[str]:
    """What the servers disagree about."""
    first, *others = found.items()
    wrong: list[str] = []
    for name, events in others:
        mine = {one.position: one for one in first[1]}
        theirs = {one.position: one for one in events}
        for position in sorted(mine.keys() ^ theirs.keys())[:10]:
            wrong.append(f"position {position} is only on {first[0] if position in mine else name}")
        for position in mine.keys() & theirs.keys():
            one, other = mine[position], theirs[position]
            if (one.subject, one.body, dict(one.headers)) != (other.subject, other.body, dict(other.headers)):
                wrong.append(f"position {position} is another event on {name} than on {first[0]}")
    return wrong


def kept(events: Sequence[Recorded], operations: dict[str, int]) -> list[str]:
    """Accepted operations that are missing in the log, or are there more than once."""
    accepted: Counter[str] = Counter()
    versions: dict[str, int] = defaultdict(int)
    at: dict[int, Recorded] = {}
    wrong: list[str] = []
    of: dict[str, set[str]] = defaultdict(set)
    for one in events:
        at[one.position] = one
        versions[one.subject] += 1
        if one.version != versions[one.subject]:
            wrong.append(f"{one.subject} has version {one.version} after {versions[one.subject] - 1} events")
        if one.context.operation is not None:
            of[one.context.operation].add(one.subject)
            if one.type == "nebula.vm.VmRequested":
                accepted[one.context.operation] += 1
    for operation, position in operations.items():
        if operation not in of:
            wrong.append(f"operation {operation} was accepted at {position}, and is not in the log")
        elif position not in at:
            wrong.append(f"operation {operation} was accepted at {position}, where nothing is")
        elif accepted[operation] > 1:
            wrong.append(f"operation {operation} has created {accepted[operation]} VMs")
    return wrong


def within_capacity(events: Sequence[Recorded]) -> list[str]:
    """Positions at which a node has promised more than it has."""
    world, wrong = World(), list[str]()
    for one in events:
        world.apply(one)
        _, _, _, kind, id_ = one.subject.split(".")
        if kind != "node" or (node := world.node(id_)) is None:
            continue
        promised = list(node.reservations.values())
        used = (
            sum(each.vcpus for each in promised),
            sum(each.memory_mib for each in promised),
            sum(each.disk_gib for each in promised),
        )
        most = (int(node.info.vcpus * RATIO), node.info.memory_mib, node.info.disk_gib)
        if any(a > b for a, b in zip(used, most, strict=True)):
            wrong.append(f"position {one.position}: node {id_} has promised {used} of {most}")
    return wrong


def on_one_node(bed: Bed, nodes: int) -> list[str]:
    """VMs that run on more than one node, by the nodes' own disks."""
    store = HostStore(hosts_file(bed.home))
    running: dict[str, list[str]] = defaultdict(list)
    for number in range(1, nodes + 1):
        name = f"sim-{number:03d}"
        for id_, have in stored_domains(store, name).items():
            if have.power is Power.ON:
                running[id_].append(name)
    store.close()
    return [f"VM {id_} runs on {' and '.join(names)}" for id_, names in running.items() if len(names) > 1]


def hosts_file(home: Path) -> Path:
    return home / "hosts" / NODES / "simulation" / "simulated-sim" / "hosts.sqlite"
