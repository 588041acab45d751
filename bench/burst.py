"""Twenty creates at once on one node, from the first POST to the last running domain.

The floor is as often overlay + define + create by bare libvirt-python, all at once in as many threads. Platform and
floor take turns.
"""

import argparse
import asyncio
import statistics
import time
from typing import Any

import libvirt

from bench.bare import Bare
from bench.cloud import IMAGE, PROJECT, Cloud, cloud, expect
from runtime.local.libvirtd import ensure_libvirt
from runtime.tasks.tasks import in_thread

COUNT = 20
ROUNDS = 2
ROLES = ("gateway", "handlers", "projections", "node")
URI = "qemu:///system"
VMS = f"/v1/projects/{PROJECT}/vms"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=COUNT, help=f"VMs at the same time ({COUNT})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds, each about half a minute ({ROUNDS})")


async def measure(count: int = COUNT, rounds: int = ROUNDS) -> dict[str, Any]:
    await ensure_libvirt(URI)
    connection = await asyncio.to_thread(libvirt.open, URI)
    try:
        async with cloud(ROLES, NEBULA_LIBVIRT_URI=URI, NEBULA_VCPU_RATIO=str(count)) as made:
            await made.prepare()
            like = await burst(made, 1, connection)  # warm
            pairs = []
            for _ in range(rounds):
                ended: list[float] = []
                started = time.perf_counter()
                await burst(made, count, connection, ended)
                pairs.append((ended[0] - started, await bare(made, connection, like, count)))
    finally:
        connection.close()
    return {
        "vms_at_once": count,
        "seconds": round(statistics.median(ours for ours, _ in pairs), 3),
        "bare_libvirt_seconds": round(statistics.median(floor for _, floor in pairs), 3),
        "ratio": round(statistics.median(ours / floor for ours, floor in pairs), 3),
        "rounds": rounds,
    }


async def burst(made: Cloud, count: int, connection: libvirt.virConnect, ended: list[float] | None = None) -> str:
    """Create so many VMs at once and delete them again; when the last one ran goes to `ended`. The XML of one."""
    vms = await asyncio.gather(*(create(made) for _ in range(count)))
    if ended is not None:
        ended.append(time.perf_counter())
    xml: str = await asyncio.to_thread(lambda: connection.lookupByUUIDString(vms[0]).XMLDesc(0))
    await asyncio.gather(*(delete(made, vm) for vm in vms))
    return xml


async def create(made: Cloud) -> str:
    size = {"vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    async with made.connection() as http:
        answer = await expect(http, "POST", VMS, {"name": "burst", "image": IMAGE, **size})
        operation = await expect(http, "GET", f"/v1/operations/{answer['operation']['id']}?wait=60s")
    if operation["status"] != "succeeded":
        raise RuntimeError(f"create: {operation}")
    return str(answer["vm"]["id"])


async def delete(made: Cloud, vm: str) -> None:
    async with made.connection() as http:
        await expect(http, "DELETE", f"{VMS}/{vm}?wait=60s")


async def bare(made: Cloud, connection: libvirt.virConnect, like: str, count: int) -> float:
    """Seconds until all run."""
    domains = [Bare(made.home, connection, like) for _ in range(count)]
    started = time.perf_counter()
    await asyncio.gather(*(in_thread(domain.make) for domain in domains))
    took = time.perf_counter() - started
    await asyncio.gather(*(in_thread(domain.remove) for domain in domains))
    return took
