"""What VMs and nodes used lately: from the file of a node over the bus to HTTP and the command line."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from domain.guest_usage import UsagePoint
from node_daemon.asks.answers import Answers
from node_daemon.hypervisor.hypervisor import Boot
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from node_daemon.storage.disks import Disks
from node_daemon.usage.host import Host
from node_daemon.usage.sampler import Sampler
from node_daemon.usage.series import Series
from runtime.tasks.tasks import end
from tests.gateway.platform import VMS, Platform
from tests.waiting import eventually

NODE = "/v1/nodes/host-1/usage"


@dataclass
class Node:
    """host-1, which has taken samples of simulated guests each 30 seconds."""

    api: Platform
    simulator: Simulator
    sampler: Sampler
    now: float

    async def running(self, name: str) -> str:
        vm = str((await self.api.running(name=name))["vm"]["id"])
        wanted = await self.api.side.wanted(vm)
        assert wanted is not None
        await self.simulator.start(Boot(wanted, "/disk", "/base", "raw", "/console", "host-boot"))
        return vm

    async def samples(self, count: int) -> None:
        for _ in range(count):
            self.now += 30
            await self.sampler.sample()


@pytest.fixture
async def node(api: Platform, tmp_path: Path) -> AsyncIterator[Node]:
    simulator = Simulator(SimulatedHost("host-1"))
    made: Node
    clocks = (lambda: made.now, lambda: made.now)
    series = Series(tmp_path / "usage.series")
    sampler = Sampler("host-1", 30, simulator.usage, Host(tmp_path).usage, series, *clocks)
    made = Node(api, simulator, sampler, time.time() - 3600)
    serving = asyncio.create_task(Answers(api.side.nc, "host-1", Disks(tmp_path), simulator, sampler=sampler).serve())
    yield made
    await end([serving])


async def test_a_series_of_a_vm_and_of_its_node(node: Node) -> None:
    vm = await node.running("used")
    await node.samples(21)
    answer = await node.api.http.get(f"{VMS}/{vm}/usage?since=10m&points=20")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert found.keys() == {"from", "to", "step_seconds", "size", "points", "position"}
    assert (found["step_seconds"], len(found["points"])) == (30, 20)
    assert found["points"][0].keys() == UsagePoint.model_fields.keys()
    assert found["points"][-1]["at"] == found["to"]
    assert all(point["memory_bytes"] > 0 and point["cpu"] is not None for point in found["points"])
    assert found["size"]["cpus"] == 1 and found["position"] == int(answer.headers["nebula-position"])
    host = await node.api.get(f"{NODE}?since=10m&points=5")
    assert len(host["points"]) == 5 and host["step_seconds"] == 120
    assert all(point["cpu"] is not None and point["disk_bytes"] for point in host["points"])
    assert len((await node.api.get(NODE))["points"]) == 120, "an hour"


async def test_a_vm_that_is_new_or_off_has_no_points_yet(node: Node) -> None:
    vm = str((await node.api.running(name="unused"))["vm"]["id"])
    found = await node.api.get(f"{VMS}/{vm}/usage")
    assert {point["cpu"] for point in found["points"]} == {None}


@pytest.mark.parametrize(
    "query",
    [
        *("since=", "since=25h", "since=0h", "since=1441m", "since=86401s", "since=1d", "since=-1h", "since=1.5h"),
        *("since=60", "since=1h&since=2h", "points=0", "points=501", "points=-1", "points=x", "points=1.0", "points="),
        *("at=1", "at=2026-01-01T00:00:00Z", "from=1", "wait=1s"),
    ],
)
async def test_parameters_that_make_no_sense(node: Node, query: str) -> None:
    vm = (await node.api.running())["vm"]["id"]
    for path in (f"{VMS}/{vm}/usage", NODE):
        answer = await node.api.http.get(f"{path}?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter"), answer.text
        assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


async def test_which_vms_and_nodes_have_a_series(node: Node) -> None:
    async def problem(path: str) -> tuple[int, str]:
        answer = await node.api.http.get(path)
        return answer.status_code, answer.json()["code"]

    unplaced = (await node.api.create(region="elsewhere"))["vm"]["id"]
    assert await problem(f"{VMS}/{unplaced}/usage") == (409, "vm_not_placed")
    await node.api.call("DELETE", f"{VMS}/{unplaced}")

    async def deleted() -> bool:
        return await problem(f"{VMS}/{unplaced}/usage") == (410, "vm_deleted")

    await eventually(deleted, "it is deleted")
    assert await problem(f"{VMS}/6ba7b810-9dad-11d1-80b4-00c04fd430c8/usage") == (404, "vm_not_found")
    assert await problem("/v1/nodes/host-9/usage") == (404, "node_not_found")


async def test_a_node_that_is_away(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    for path in (f"{VMS}/{vm}/usage", NODE):
        answer = await api.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "node_unavailable")
        assert "node host-1" in answer.json()["detail"]


SERIES: dict[str, Any] = {
    **{"start": "2026-01-01T00:00:00Z", "step_seconds": 30, "size": {}},
    **{key: [1] for key in ("cpu", "memory_bytes", "disk_bytes", "disk_read", "disk_written", "net_in", "net_out")},
}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"ok": 7},
        {"ok": {}},
        {"ok": {**SERIES, "cpu": [-1]}},
        {"ok": {**SERIES, "cpu": ["x"]}},
        {"ok": {**SERIES, "cpu": [1, 1]}},
        {"ok": {**SERIES, "net_in": [2**60]}},
        {"ok": {**SERIES, "step_seconds": 0}},
        {"ok": {**SERIES, "start": "2026-01-01T00:00:00"}},
        {"ok": {**SERIES, "start": "9999-12-31T23:59:59Z", "step_seconds": 86400}},
        {"ok": {**SERIES, "size": {"cpus": 10**9}}},
        {"ok": {name: value * 501 if isinstance(value, list) else value for name, value in SERIES.items()}},
        {"ok": {name: value * 121 if isinstance(value, list) else value for name, value in SERIES.items()}},
    ],
)
async def test_a_node_whose_answer_is_invalid(api: Platform, said: Any) -> None:
    async def answer(msg: Msg) -> None:
        await msg.respond(json.dumps(said).encode())

    subscription = await api.side.nc.subscribe("nebula.nodes.host-1.asks.host-usage", cb=answer)
    answered = await api.http.get(NODE)
    await subscription.unsubscribe()
    assert (answered.status_code, answered.json()["code"]) == (502, "node_answer_invalid"), answered.text


async def test_a_node_of_an_earlier_version(api: Platform) -> None:
    async def answer(msg: Msg) -> None:
        problem = {"code": "unknown_question", "detail": "upgrade its daemon", "status": 501}
        await msg.respond(json.dumps({"problem": problem}).encode())

    subscription = await api.side.nc.subscribe("nebula.nodes.host-1.asks.host-usage", cb=answer)
    answered = await api.http.get(NODE)
    await subscription.unsubscribe()
    assert (answered.status_code, answered.json()["code"]) == (501, "unknown_question")


async def test_the_commands(node: Node) -> None:
    await node.running("shown")
    await node.samples(12)
    for command in (("vm", "usage", "shown", "--since", "10m"), ("node", "usage", "host-1")):
        pipe = asyncio.subprocess.PIPE
        argv = [sys.executable, "-m", "cli.main", *command, "--url", node.api.url]
        process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
        out, err = await process.communicate()
        assert process.returncode == 0, err
        names = [line.split("  ")[0] for line in out.decode().splitlines()]
        assert names[1:4] == ["cpu", "memory", "disk"], out
