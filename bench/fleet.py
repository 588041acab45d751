"""A large fleet: 1,000 simulated nodes with 20,000 VMs, each node with a complete daemon, in one process.

How long until all run; what each role, and the fleet, cost while nothing changes: CPU, memory, messages and reports;
and after how long a node is lost that has gone silent. For a node, `cpu_ms_per_node_and_minute` counts: on real hosts
each has its own CPUs.
"""

import argparse
import asyncio
import signal
import time
from typing import Any

from bench.cloud import Cloud
from bench.cpu_time import Cpu
from bench.fleet_parts import ROLES, count, create, each, fleet, messages, running, stored, tell, until
from runtime import subjects
from runtime.bus.accounts.table import SIMULATION

SETTLE = 45.0
"""Seconds after the last VM runs until the measure at rest."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--vms", type=int, default=20_000)
    parser.add_argument("--rest", type=float, default=60.0, help="seconds of the measure at rest (60)")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds after which it is given up (1800)")


async def measure(nodes: int = 1000, vms: int = 20_000, rest: float = 60.0, limit: float = 1800.0) -> dict[str, Any]:
    """The figures. Raises RuntimeError if the whole takes longer than `limit` seconds, or a step makes no progress."""
    try:
        async with asyncio.timeout(limit):
            return await measured(nodes, vms, rest)
    except TimeoutError:
        raise RuntimeError(f"not done after {limit:.0f} s; the last line above says what was waited for") from None


async def measured(nodes: int, vms: int, rest: float) -> dict[str, Any]:
    started = time.perf_counter()
    async with fleet(nodes) as made:
        registered = time.perf_counter() - started
        tell(f"{nodes} nodes are registered after {registered:.0f} s")
        cpu = Cpu(made)
        accepted = await each(made, range(vms), lambda http, _: create(http, []))
        all_run = accepted + await running(made, vms)
        building = {name: round(seconds / vms * 1e3, 2) for name, seconds in cpu.seconds().items()}
        tell(f"{vms} VMs run after {all_run:.0f} s; measuring at rest for {min(SETTLE, rest) + rest:.0f} s")
        await asyncio.sleep(min(SETTLE, rest))
        at_rest = await resting(made, rest)
        pss = made.pss_mib()
        tell("the fleet is killed; waiting until its nodes are lost")
        silent = await until_lost(made, nodes)
    cores = at_rest["cores_at_rest_by_role"]
    return {
        "nodes": nodes,
        "vms": vms,
        "start_until_registered_seconds": round(registered, 1),
        "accepted_per_second": round(vms / accepted),
        "running_per_second": round(vms / all_run),
        "all_run_seconds": round(all_run, 1),
        "cpu_ms_per_vm_by_role": building,
        **at_rest,
        "most_cores_of_a_role": max(cores[role] for role in ROLES),
        "cpu_ms_per_node_and_minute": round(cores[SIMULATION] * 60_000 / nodes, 1),
        "pss_mib_by_role": pss,
        **silent,
    }


async def resting(made: Cloud, seconds: float) -> dict[str, Any]:
    """What is spent and sent while nothing changes."""
    cpu, sent = Cpu(made), await messages(made)
    reports, events = await stored(made, subjects.REPORTS), await stored(made, subjects.EVENTS)
    await asyncio.sleep(seconds)
    cores = cpu.cores()
    return {
        "cores_at_rest_by_role": cores,
        "messages_per_second_at_rest": round((await messages(made) - sent) / seconds, 1),
        "reports_per_second_at_rest": round((await stored(made, subjects.REPORTS) - reports) / seconds, 2),
        "events_at_rest": await stored(made, subjects.EVENTS) - events,
    }


async def until_lost(made: Cloud, nodes: int) -> dict[str, Any]:
    """Stop the fleet, as a power cut does. Returns the seconds until the first and until all nodes are lost."""
    made.processes[SIMULATION].process.send_signal(signal.SIGKILL)
    started = time.perf_counter()
    first = 0.0

    async def lost() -> int:
        nonlocal first
        found = await count(made, "nodes", "(state ->> 'lost')::boolean")
        first = first or (time.perf_counter() - started if found else 0.0)
        return found

    last = await until(lost, nodes, "nodes are lost")
    return {"first_lost_seconds": round(first, 1), "all_lost_seconds": round(last, 1)}
