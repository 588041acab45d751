"""The same work again and again in one log: VMs are created, run, and are deleted, in several rounds.

Nothing may cost more because of what was deleted: `slope` is the growth of the CPU time of one VM from one round to the
next, as a share of the first round (least squares). The nodes are simulated, without delays. A round includes all that
follows from it, and excludes what the roles cost at rest for the time that it takes (`cpu_time.Settled`). The
floor is the CPU time of a fixed piece of work before and after each round: on a busy machine all CPU time grows, and
`slope_to_floor` is that of the ratio. `growth` is the last round divided by the first on the fitted line of that ratio,
and `worst_growth` that of the role that grows most: it should be at most 1.1 (`goal_reached`).
"""

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from typing import Any

from bench.cloud import Cloud
from bench.cpu_time import Cpu, Settled, floor_ms, shown
from bench.fleet_parts import create, delete, deleted, each, fleet, running

IDLE = 10.0
"""Seconds at most of the measure at rest after each round."""
GOAL = 1.1
"""What a VM may cost in the last round, as a multiple of the first one."""
SETTLE = 45.0
"""Seconds after the last round until the measure at rest: a node repeats its last reports that long."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vms", type=int, default=1000, help="VMs of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--rest", type=float, default=60.0, help="seconds of the measure at rest, all VMs deleted")


async def measure(vms: int = 1000, rounds: int = 5, nodes: int = 10, rest: float = 60.0) -> dict[str, Any]:
    figures: list[dict[str, Any]] = []
    async with fleet(nodes) as made:
        await one_round(made, max(2, vms // 10))  # warm
        costs = await Settled.begin(made, min(IDLE, rest))
        idle = costs.cores
        for _ in range(rounds):
            figures.append(await measured(made, vms, costs))
        await asyncio.sleep(min(SETTLE, rest))
        cpu = Cpu(made)
        await asyncio.sleep(rest)
        at_rest = cpu.cores()
        pss = made.pss_mib()
    roles = list(figures[0]["cpu"])
    totals = [sum(one["cpu"].values()) for one in figures]
    floors = [one["floor"] for one in figures]
    growth_by_role = {role: growth([one["cpu"][role] / one["floor"] for one in figures]) for role in roles}
    return {
        "vms": vms,
        "nodes": nodes,
        "accepted_per_second": [round(one["accepted"]) for one in figures],
        "running_per_second": [round(one["running"]) for one in figures],
        "deleted_per_second": [round(one["deleted"]) for one in figures],
        "cpu_ms_per_vm": [round(total, 2) for total in totals],
        "floor_cpu_ms": [round(floor, 2) for floor in floors],
        "slope": slope(totals),
        "slope_to_floor": slope([total / floor for total, floor in zip(totals, floors, strict=True)]),
        "growth": growth([total / floor for total, floor in zip(totals, floors, strict=True)]),
        "worst_growth": max(growth_by_role.values()),
        "goal": GOAL,
        "goal_reached": max(growth_by_role.values()) <= GOAL,
        "growth_by_role": growth_by_role,
        "slope_by_role": {role: slope([one["cpu"][role] for one in figures]) for role in roles},
        "cpu_ms_per_vm_by_role": {role: [round(one["cpu"][role], 2) for one in figures] for role in roles},
        "cores_at_rest_before": round(sum(idle.values()), 3),
        "cores_at_rest": round(sum(at_rest.values()), 3),
        "cores_at_rest_by_role": at_rest,
        "pss_mib_by_role": pss,
    }


async def measured(made: Cloud, vms: int, costs: Settled) -> dict[str, Any]:
    """One round, with what a VM costs."""
    found, before = dict[str, Any](), floor_ms()

    async def work() -> None:
        found.update(await one_round(made, vms))

    cpu = await costs.milliseconds(work, vms)
    return {**found, "cpu": cpu, "floor": (before + floor_ms()) / 2}


async def one_round(made: Cloud, vms: int) -> dict[str, float]:
    """Create so many VMs, wait until all run, delete them, and wait until none is left. Returns how many per second."""
    after, ids = await shown(made), list[str]()
    accepted = await each(made, range(vms), lambda http, _: create(http, ids))
    run = accepted + await running(made, vms, after)
    deletes = await each(made, ids, delete)
    deletes += await deleted(made, after)
    return {"accepted": vms / accepted, "running": vms / run, "deleted": vms / deletes}


def growth(values: Sequence[float]) -> float:
    """The last value of the fitted line divided by its first."""
    return round(1.0 + slope(values) * (len(values) - 1), 3)


def slope(values: Sequence[float]) -> float:
    """The growth from one round to the next, as a share of the first value of the fitted line."""
    if len(values) < 2:
        return 0.0
    line = statistics.linear_regression(range(len(values)), values)
    return round(line.slope / line.intercept, 4) if line.intercept > 0 else 0.0
