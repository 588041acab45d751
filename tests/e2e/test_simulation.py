"""`nebula node --simulate`: a cloud of simulated nodes under a real platform, killed in the middle."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bench.cloud import IMAGE, PROJECT, Cloud, cloud, expect
from runtime.child import free_port
from tests.waiting import eventually

NODES, COUNT = 20, 100
VMS = f"/v1/projects/{PROJECT}/vms"
QUICK = ("call=0.001", "image=0.1", "boot=0.5", "lease=0.2", "shutdown=0.2")


@pytest.fixture
async def control_plane() -> AsyncIterator[tuple[Cloud, str]]:
    """Everything but nodes, and the URL of the data source."""
    port = str(free_port())
    async with cloud(["gateway", "handlers", "projections"], NEBULA_SEED_PORT=port) as made:
        await made.prepare()
        yield made, f"http://127.0.0.1:{port}/"


@asynccontextmanager
async def simulating(made: Cloud, seed_url: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of simulated nodes; leaving kills it."""
    environment = {
        **os.environ,
        "NEBULA_HOME": str(made.home),
        "NEBULA_NATS_URL": made.nats_url,
        "NEBULA_SEED_URL": seed_url,
        "NEBULA_HEARTBEAT_SECONDS": "0.5",
        "NEBULA_LOG_LEVEL": "warning",
    }
    seconds = [part for each in QUICK for part in ("--seconds", each)]
    command = [sys.executable, "-m", "cli.main", "node", "--simulate", str(NODES), *seconds, *options]
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def pages(made: Cloud, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    token = ""
    async with made.connection() as http:
        while True:
            page = await expect(http, "GET", f"{path}?limit=500{token}")
            found += page["items"]
            if page["next_page_token"] is None:
                return found
            token = f"&page_token={page['next_page_token']}"


async def remembered(made: Cloud) -> Counter[str]:
    """How many domains and disks there are on all simulated hosts."""
    database = sqlite3.connect(f"file:{made.home}/simulated-sim/hosts.sqlite?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT kind, count(*) FROM things WHERE kind IN ('domain', 'disk') GROUP BY kind")
        return Counter(dict(rows.fetchall()))
    finally:
        database.close()


async def test_a_cloud_of_simulated_nodes_that_is_killed(control_plane: tuple[Cloud, str]) -> None:
    made, seed_url = control_plane

    async def count(check: str, value: object) -> int:
        return sum(vm[check] == value for vm in await pages(made, VMS))

    async def at_least(number: int, check: str, value: object) -> bool:
        return await count(check, value) >= number

    async with simulating(made, seed_url, "--region", "lab"):
        await eventually(lambda: at_nodes(made), "all nodes are known")
        nodes = await pages(made, "/v1/nodes")
        assert {node["region"] for node in nodes} == {"lab"}
        assert [node["id"] for node in nodes] == [f"sim-{number:03d}" for number in range(1, NODES + 1)]

        async with made.connection() as http:
            for number in range(COUNT):
                size = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
                await expect(http, "POST", VMS, {"name": f"vm-{number}", "image": IMAGE, **size})
        await eventually(lambda: at_least(1, "phase", "running"), "the first runs")
    assert await count("ready", True) < COUNT, "it was killed too late to matter"

    async with simulating(made, seed_url, "--region", "lab") as again:
        await eventually(lambda: at_least(COUNT, "phase", "running"), "all run")
        await eventually(lambda: at_least(COUNT, "ready", True), "all are ready")
        assert await remembered(made) == {"domain": COUNT, "disk": COUNT}
        vms = await pages(made, VMS)
        assert all(vm["addresses"] for vm in vms)
        assert len({vm["node"] for vm in vms}) == NODES

        types = Counter(event["type"].rsplit(".", 1)[-1] for event in await pages(made, "/v1/events"))
        assert types["VmStarted"] == types["VmGuestReady"] == COUNT

        async with made.connection() as http:
            for vm in vms:
                await expect(http, "DELETE", f"{VMS}/{vm['id']}")

        async def nothing() -> bool:
            return not await pages(made, VMS) and not await remembered(made)

        await eventually(nothing, "nothing is left")
        again.send_signal(signal.SIGTERM)
        assert await again.wait() == 0


async def at_nodes(made: Cloud) -> bool:
    return sum(node["status"] == "ready" for node in await pages(made, "/v1/nodes")) == NODES
