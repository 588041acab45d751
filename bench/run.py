"""Many creates until all run: 3,000 of them, 64 in flight, on ten simulated nodes without delays.

`running_per_second` counts from the first request until the last VM is shown as running. The floor is a durable publish
by bare nats-py in the same run, also 64 in flight. `growth` compares the CPU time of a create on full nodes with that
on almost empty ones: nothing may cost more because a node has many VMs. Each of the two includes all that follows from
the creates, and excludes what the roles cost at rest with the VMs that there are (`cpu_time.Settled`). It is divided by
the CPU time of a fixed piece of work before and after it (`floor_ms`): on a busy machine all CPU time grows.
`worst_growth` is that of the role that grows most, and should be at most 1.1 (`goal_reached`). A role that costs little
is not compared.
"""

import argparse
from typing import Any

from bench import commands
from bench.cloud import Cloud
from bench.cpu_time import Cpu, Settled, floor_ms, shown
from bench.fleet_parts import create, each, fleet, running

WARM = 50
#: What a create may cost on full nodes, as a multiple of what it costs on empty ones; and the milliseconds of CPU time
#: for a create below which a role is not compared: the kernel counts in steps of 10 ms.
GOAL, LITTLE = 1.1, 0.2


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vms", type=int, default=3000, help="VMs of the large part")
    parser.add_argument("--part", type=int, default=1000, help="VMs of each of the two parts that are compared")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--rest", type=float, default=10.0, help="seconds of each measure at rest")


async def measure(vms: int = 3000, part: int = 1000, nodes: int = 10, rest: float = 10.0) -> dict[str, Any]:
    async with fleet(nodes) as made:
        await creates(made, WARM)
        raw = await commands.raw(made, 2 * vms)
        costs = await Settled.begin(made, rest)
        at_first = costs.cores
        first, first_floor = await of_part(made, costs, part)
        cpu = Cpu(made)
        large = await creates(made, vms)
        spent = {name: seconds / vms * 1e3 for name, seconds in cpu.seconds().items()}
        await costs.settle()
        last, last_floor = await of_part(made, costs, part)
        raw = (raw + await commands.raw(made, 2 * vms)) / 2
        pss = made.pss_mib()
    slower = last_floor / first_floor
    growths = {name: round(last[name] / value / slower, 3) for name, value in first.items() if value >= LITTLE}
    worst = max(growths.values(), default=1.0)
    return {
        "vms": vms,
        "nodes": nodes,
        "accepted_per_second": round(large["accepted"]),
        "running_per_second": round(large["running"]),
        "raw_publishes_per_second": round(raw),
        "ratio": round(large["running"] / raw, 3),
        "cpu_ms_per_vm": round(sum(spent.values()), 2),
        "cpu_ms_per_vm_by_role": rounded(spent),
        "first_cpu_ms_per_vm_by_role": rounded(first),
        "last_cpu_ms_per_vm_by_role": rounded(last),
        "floor_cpu_ms": [round(first_floor, 1), round(last_floor, 1)],
        "growth": round(sum(last.values()) / max(sum(first.values()), LITTLE) / slower, 3),
        "growth_by_role": growths,
        "worst_growth": worst,
        "goal": GOAL,
        "goal_reached": worst <= GOAL,
        "cores_at_rest_before_by_role": at_first,
        "cores_at_rest_after_by_role": costs.cores,
        "pss_mib_by_role": pss,
    }


async def creates(made: Cloud, vms: int) -> dict[str, float]:
    """Create so many more VMs, and wait until all are shown as running. Returns how many per second."""
    before = await shown(made)
    accepted = await each(made, range(vms), lambda http, _: create(http, []))
    run = accepted + await running(made, vms, before)
    return {"accepted": vms / accepted, "running": vms / run}


async def of_part(made: Cloud, costs: Settled, vms: int) -> tuple[dict[str, float], float]:
    """Milliseconds of CPU time of each role for a VM, and those of the floor."""
    before = floor_ms()
    found = await costs.milliseconds(lambda: creates(made, vms), vms)
    return found, (before + floor_ms()) / 2


def rounded(cpu: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in cpu.items()}
