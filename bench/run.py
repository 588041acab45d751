"""Many creates until all run: 3,000 of them, 64 in flight, on ten simulated nodes without delays.

`running_per_second` counts from the first request until the last VM is shown as running. The floor is a durable publish
by bare nats-py in the same run, also 64 in flight. `growth` compares the CPU time of a create on full nodes with that
on almost empty ones: nothing may cost more because a node has many VMs.
"""

import argparse
from typing import Any

from bench import commands
from bench.cloud import Cloud
from bench.fleet_parts import Cpu, count, create, each, fleet, running

WARM = 50


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vms", type=int, default=3000, help="VMs of the large part")
    parser.add_argument("--part", type=int, default=1000, help="VMs of each of the two parts that are compared")
    parser.add_argument("--nodes", type=int, default=10)


async def measure(vms: int = 3000, part: int = 1000, nodes: int = 10) -> dict[str, Any]:
    async with fleet(nodes) as made:
        await creates(made, WARM)
        raw = await commands.raw(made, 2 * vms)
        first = await creates(made, part)
        large = await creates(made, vms)
        last = await creates(made, part)
        raw = (raw + await commands.raw(made, 2 * vms)) / 2
        pss = made.pss_mib()
    return {
        "vms": vms,
        "nodes": nodes,
        "accepted_per_second": round(large["accepted"]),
        "running_per_second": round(large["running"]),
        "raw_publishes_per_second": round(raw),
        "ratio": round(large["running"] / raw, 3),
        "cpu_ms_per_vm": round(sum(large["cpu"].values()), 2),
        "cpu_ms_per_vm_by_role": rounded(large["cpu"]),
        "first_cpu_ms_per_vm_by_role": rounded(first["cpu"]),
        "last_cpu_ms_per_vm_by_role": rounded(last["cpu"]),
        "growth": round(sum(last["cpu"].values()) / sum(first["cpu"].values()), 3),
        "pss_mib_by_role": pss,
    }


async def creates(made: Cloud, vms: int) -> dict[str, Any]:
    """Create so many more VMs, and wait until all are shown as running."""
    before = await count(made, "vms", "NOT deleted")
    cpu = Cpu(made)
    accepted = await each(made, range(vms), lambda http, _: create(http, []))
    run = accepted + await running(made, before + vms)
    spent = {name: seconds / vms * 1e3 for name, seconds in cpu.seconds().items()}
    return {"accepted": vms / accepted, "running": vms / run, "cpu": spent}


def rounded(cpu: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in cpu.items()}
