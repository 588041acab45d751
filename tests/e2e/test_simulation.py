"""`nebula node --simulate` under a real platform: a cloud that is killed in the middle, and two of one name."""

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
from runtime.bus.accounts.table import SIMULATION
from runtime.local.child import free_port
from tests.node_process import NodeProcess, node_process, simulated
from tests.waiting import eventually

NODES, COUNT = 20, 100
VMS = f"/v1/projects/{PROJECT}/vms"
QUICK = ("call=0.001", "image=0.1", "boot=0.5", "lease=0.2", "shutdown=0.2")


@pytest.fixture(scope="module")
async def control_plane() -> AsyncIterator[tuple[Cloud, str]]:
    """Everything but nodes, and the URL of the data source."""
    settings = {
        "NEBULA_SEED_PORT": (port := str(free_port())),
        "NEBULA_LEASE_SECONDS": "5",
        "NEBULA_NODE_TIMEOUT": "600",
    }
    async with cloud(["gateway", "handlers", "projections", "guest-data"], **settings) as made:
        await made.prepare()
        yield made, f"http://127.0.0.1:{port}/"


def credential(made: Cloud) -> dict[str, str]:
    """The setting with the credential of simulated nodes."""
    return {"NEBULA_NATS_CREDS": made.env_of(SIMULATION)["NEBULA_NATS_CREDS"]}


@asynccontextmanager
async def simulating(made: Cloud, seed_url: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of simulated nodes; leaving kills it."""
    environment = {
        **os.environ,
        **credential(made),
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
            page = await expect(http, "GET", f"{path}{'&' if '?' in path else '?'}limit=500{token}")
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
        nodes = await pages(made, "/v1/nodes?region=lab")
        assert {node["region"] for node in nodes} == {"lab"}
        assert sorted(node["id"] for node in nodes) == [f"sim-{number:03d}" for number in range(1, NODES + 1)]

        async with made.connection() as http:
            for number in range(COUNT):
                size = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
                await expect(http, "POST", VMS, {"name": f"vm-{number}", "image": IMAGE, "region": "lab", **size})
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


async def test_two_processes_of_simulated_nodes_of_one_name(control_plane: tuple[Cloud, str]) -> None:
    """The first one's VMs run on, whatever the second does; who has its disks takes over, once it was killed."""
    made, _ = control_plane
    home, other = made.home / "one", made.home / "two"

    async def node(number: int = 1) -> dict[str, Any]:
        async with made.connection() as http:
            found: dict[str, Any] = await expect(http, "GET", f"/v1/nodes/twin-00{number}")
        return found

    async def all_run() -> bool:
        return [vm["phase"] for vm in await pages(made, VMS)] == ["running"] * 3

    async def works(process: NodeProcess) -> bool:
        daemons = [(await node(number))["daemon"] for number in (1, 2, 3)]
        return all(daemon and daemon["pid"] == process.pid for daemon in daemons)

    async def counted() -> tuple[int, str]:
        async with made.connection() as http:
            health = await expect(http, "GET", "/healthz")
            metrics = (await http.request("GET", "/metrics")).body.decode()
        return health["daemons_waiting"], metrics

    async with node_process(home, made.nats_url, *simulated("twin", 3), **credential(made)) as first:
        await eventually(lambda: at_nodes(made, 3, "twin"), "the nodes are known")
        async with made.connection() as http:
            for number in range(3):
                size = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
                await expect(http, "POST", VMS, {"name": f"vm-{number}", "image": IMAGE, "region": "twin", **size})
        await eventually(all_run, "all run")
        async with node_process(other, made.nats_url, *simulated("twin", 3), **credential(made)) as second:
            for number in (1, 2, 3):
                await second.says(f"another daemon works for node twin-00{number}: process {first.pid} on host")

            async def shown() -> bool:
                return (await counted())[0] == 3 and [each["pid"] for each in (await node())["waiting"]] == [second.pid]

            await eventually(shown, "healthz and the node tell of the second")
            assert "nebula_node_daemons_refused_total 3.0" in (await counted())[1]
            assert "node refused" in (made.home / "roles.log").read_text()
            assert await works(first) and await all_run()

            async with node_process(home, made.nats_url, *simulated("twin", 3), **credential(made)) as third:
                assert await third.process.wait() == 2
            assert f"another node daemon works on {home}/simulated-twin" in third.said()
            assert "Traceback" not in third.said()

            await first.kill()
            await second.says("VMs of node twin-001 are with another daemon")
            async with node_process(home, made.nats_url, *simulated("twin", 3), **credential(made)) as next_:
                await eventually(lambda: works(next_), "the next one on the folder works for all three")
                assert await all_run()
                types = Counter(event["type"].rsplit(".", 1)[-1] for event in await pages(made, "/v1/events"))
                assert not {"VmFailed", "VmLost", "VmStopped"} & set(types)
                async with made.connection() as http:
                    for vm in await pages(made, VMS):
                        await expect(http, "DELETE", f"{VMS}/{vm['id']}")

                async def nothing() -> bool:
                    return not await pages(made, VMS)

                await eventually(nothing, "nothing is left")
                await next_.kill()
            await eventually(lambda: works(second), "without VMs on the node, the second takes over as well")


async def at_nodes(made: Cloud, number: int = NODES, region: str = "lab") -> bool:
    found = [node["status"] for node in await pages(made, f"/v1/nodes?region={region}")]
    return found.count("ready") == number
