"""One simulated node with room for so many VMs, and more creates than that, by several handlers.

The log is read afterwards and folded: the most that was ever reserved on the node, at any position.
"""

import asyncio
import time
import uuid
from dataclasses import dataclass

from nats.aio.client import Client

from bench.cloud import IMAGE, PROJECT, Cloud, cloud, expect
from bench.fleet_parts import Progress
from domain.kinds import KINDS
from domain.node import Node
from domain.vm import VmScheduled
from eventstore.log.keyring import Keyring
from eventstore.log.store import EventStore

VMS = f"/v1/projects/{PROJECT}/vms"
IN_FLIGHT = 64
MEMORY_MIB = 64
#: Seconds without a new message of the log after which nobody has anything left to do.
STILL = 2.0


@dataclass(frozen=True)
class Filled:
    """`placed`: number of VMs that got the node. `most_reserved`: the most VMs that had a reservation at a time, at
    any of the `positions` of the log. Rates are per second.
    """

    accepted_per_second: float
    placed_per_second: float
    placed: int
    most_reserved: int
    positions: int

    def figures(self) -> dict[str, int]:
        return {
            "accepted_per_second": round(self.accepted_per_second),
            "placed_per_second": round(self.placed_per_second),
        }


async def filled(handlers: int, room: int, creates: int) -> Filled:
    """Send so many creates to so many handlers; the only node has room for `room` VMs."""
    node = {
        "NEBULA_SIMULATE": "1",
        "NEBULA_SIMULATE_VCPUS": str(room),
        "NEBULA_SIMULATE_MEMORY_MIB": str(room * MEMORY_MIB),
        "NEBULA_SIMULATE_DISK_GIB": str(room),
        "NEBULA_SIMULATE_SECONDS": '{"call": 0, "image": 0, "boot": 0, "lease": 0, "shutdown": 0}',
        "NEBULA_VCPU_RATIO": "1",
    }
    async with cloud(["gateway", "handlers", "projections", "simulation"], **node) as made:
        for number in range(2, handlers + 1):
            await made.start("handlers", name=f"handlers-{number}")
        await decide(made, handlers)
        await made.prepare()
        started = time.perf_counter()
        await create(made, creates)
        accepted = time.perf_counter() - started
        nc = await made.bus()
        placed = await seconds_until_placed(made, nc, min(room, creates), started)
        found = await fold(EventStore(nc, Keyring(made.home / "event.keys")))
        await nc.close()
    return Filled(creates / accepted, min(room, creates) / placed, *found)


async def decide(made: Cloud, handlers: int) -> None:
    """Wait until so many processes of handlers report that they work."""
    async with made.connection() as http:
        for _ in range(1200):
            roles = (await expect(http, "GET", "/v1/status"))["roles"]
            if sum(each["role"] == "handlers" and each["alive"] for each in roles) >= handlers:
                return
            await asyncio.sleep(0.05)
    raise RuntimeError(f"fewer than {handlers} processes of handlers report that they work")


async def create(made: Cloud, count: int) -> None:
    """Send so many creates. Each is sent again with the id of its VM where the answer says to try again."""
    left = iter(range(count))

    async def worker() -> None:
        async with made.connection() as http:
            for _ in left:
                vm = str(uuid.uuid4())
                body = {
                    "id": vm,
                    "name": f"vm-{vm}",
                    "image": IMAGE,
                    "vcpus": 1,
                    "memory_mib": MEMORY_MIB,
                    "disk_gib": 1,
                }
                answer = await http.request("POST", VMS, body)
                while answer.status == 503:
                    await asyncio.sleep(0.1)
                    answer = await http.request("POST", VMS, body)
                if answer.status not in (202, 409):  # 409: it was accepted before, and the answer was lost
                    raise RuntimeError(f"create: {answer.status} {answer.body[:500]!r}")

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


async def seconds_until_placed(made: Cloud, nc: Client, count: int, since: float) -> float:
    """Seconds since then until so many VMs were placed; returns when the log stands still. Raises as `Progress`."""
    store = EventStore(nc, Keyring(made.home / "event.keys"))
    position, placed, took, still = 0, 0, 0.0, time.perf_counter()
    progress = Progress(count, "VMs are placed", made)
    while not took or time.perf_counter() - still < STILL:
        page = await store.read(position)
        if page:
            placed += sum(isinstance(recorded.event, VmScheduled) for recorded in page)
            position, still = page[-1].position, time.perf_counter()
        else:
            await asyncio.sleep(0.02)
        if placed >= count and not took:
            took = time.perf_counter() - since
        if not took:
            progress.note(placed)
    return took


async def fold(store: EventStore) -> tuple[int, int, int]:
    """Number of VMs that got a node; the most that had a reservation at a time; number of positions.

    Raises RuntimeError where more is reserved on a node than it has.
    """
    nodes: dict[str, Node | None] = {}
    placed: set[str] = set()
    most = position = 0
    while page := await store.read(position):
        for recorded in page:
            position = recorded.position
            if isinstance(recorded.event, VmScheduled):
                placed.add(recorded.ref.id)
            if recorded.ref.kind != "node":
                continue
            node = nodes[recorded.ref.id] = KINDS["node"].evolve(nodes.get(recorded.ref.id), recorded.event)
            if node is None:
                continue
            most = max(most, len(node.reservations))
            if beyond := over(node):
                raise RuntimeError(f"position {position}: more is reserved on {node.id} than it has: {beyond}")
    return len(placed), most, position


def over(node: Node) -> dict[str, int]:
    """What is reserved on a node beyond what it has. Added up here, and not by the node itself."""
    each, has = list(node.reservations.values()), node.info
    beyond = {
        "vcpus": sum(one.vcpus for one in each) - has.vcpus,
        "memory_mib": sum(one.memory_mib for one in each) - has.memory_mib,
        "disk_gib": sum(one.disk_gib for one in each) - has.disk_gib,
    }
    return {name: number for name, number in beyond.items() if number > 0}
