"""What a guest says of itself: over the bus from its node, to HTTP and to the command line; and why it may not."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from domain.contract import Power
from domain.guest import Guest
from node_daemon.asks import answers
from node_daemon.asks.answers import Answers
from node_daemon.hypervisor.faults import Faulty
from node_daemon.hypervisor.hypervisor import Boot
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from node_daemon.storage.disks import Disks
from runtime.settings import FaultRates
from runtime.tasks.tasks import end
from tests.gateway.platform import VMS, Platform
from tests.waiting import eventually


@dataclass
class Node:
    """host-1, which answers for simulated guests."""

    api: Platform
    host: SimulatedHost
    simulator: Simulator
    way: Faulty

    async def running(self, name: str = "web-1") -> str:
        vm = str((await self.api.running(name=name))["vm"]["id"])
        wanted = await self.api.side.wanted(vm)
        assert wanted is not None
        await self.simulator.start(Boot(wanted, "/disk", "/base", "raw", "/console", "host-boot"))
        return vm

    async def problem(self, vm: str, query: str = "") -> dict[str, Any]:
        answer = await self.api.http.get(f"{VMS}/{vm}/guest{query}")
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        problem: dict[str, Any] = answer.json()
        assert problem["status"] == answer.status_code
        return problem


@pytest.fixture
async def node(api: Platform, tmp_path: Path) -> AsyncIterator[Node]:
    host = SimulatedHost("host-1")
    simulator = Simulator(host)
    way = Faulty(simulator, FaultRates(), deadline=0.1)
    serving = asyncio.create_task(Answers(api.side.nc, "host-1", Disks(tmp_path), way).serve())
    yield Node(api, host, simulator, way)
    await end([serving])
    await way.close()


async def test_what_it_says(node: Node) -> None:
    vm = await node.running(name="says")
    answer = await node.api.http.get(f"{VMS}/{vm}/guest")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    guest = Guest.model_validate_json(answer.content)
    assert guest == await node.simulator.guest(vm)
    assert (guest.hostname, [each.mountpoint for each in guest.filesystems or ()]) == ("says", ["/"])


async def test_why_it_says_nothing(node: Node) -> None:
    vm = await node.running()
    node.host.agent_is(vm, "missing")
    problem = await node.problem(vm)
    assert (problem["status"], problem["code"]) == (409, "guest_agent_missing")
    assert "install the package qemu-guest-agent" in problem["detail"]
    node.host.agent_is(vm, "silent")
    problem = await node.problem(vm)
    assert (problem["status"], problem["code"]) == (409, "guest_agent_silent")
    assert "restart qemu-guest-agent" in problem["detail"]
    node.host.agent_is(vm, "answers")
    async with node.way.outage():
        problem = await node.problem(vm)
        assert (problem["status"], problem["code"]) == (503, "node_failed")
    await node.api.get(f"{VMS}/{vm}/guest")
    await node.simulator.destroy(vm)  # and nobody has told yet
    problem = await node.problem(vm)
    assert (problem["status"], problem["code"]) == (409, "guest_unavailable")
    assert "start the VM if it does not run" in problem["detail"]


async def test_which_vms_have_a_guest_at_all(node: Node) -> None:
    unplaced = (await node.api.create(region="elsewhere"))["vm"]["id"]
    assert (await node.problem(unplaced))["code"] == "vm_not_placed"
    vm = await node.running()
    await node.api.call("POST", f"{VMS}/{vm}/stop", {"force": True})
    await node.api.report(vm, Power.OFF, boots=1)

    async def stopped() -> bool:
        return bool((await node.api.get(f"{VMS}/{vm}"))["phase"] == "stopped")

    await eventually(stopped, "stopped")
    problem = await node.problem(vm)
    assert (problem["status"], problem["code"]) == (409, "wrong_phase")
    assert "stopped" in problem["detail"]
    assert (await node.problem("6ba7b810-9dad-11d1-80b4-00c04fd430c8"))["status"] == 404
    assert (await node.problem(vm, "?types=os"))["code"] == "invalid_parameter"


async def test_a_node_that_is_away_is_named(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    answer = await api.http.get(f"{VMS}/{vm}/guest")
    assert (answer.status_code, answer.json()["code"]) == (503, "node_unavailable")
    assert "host-1" in answer.json()["detail"]


@pytest.mark.parametrize("said", [{"ok": {"hostname": "a\x1b[2J"}}, {"ok": {"hostname": "x" * 256}}, {}, {"ok": 7}])
async def test_a_node_that_is_not_right_in_the_head_is_not_believed(api: Platform, said: Any) -> None:
    async def answer(msg: Msg) -> None:
        await msg.respond(json.dumps(said).encode())

    vm = (await api.running())["vm"]["id"]
    subscription = await api.side.nc.subscribe("nebula.nodes.host-1.asks.guest", cb=answer)
    answered = await api.http.get(f"{VMS}/{vm}/guest")
    await subscription.unsubscribe()
    assert (answered.status_code, answered.json()["code"]) == (502, "node_answer_invalid")


class Slow:
    """A hypervisor whose guests take their time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()

    async def guest(self, vm: str) -> Guest:
        self.asked.append(vm)
        await self.go_on.wait()
        return Guest(hostname=f"of {vm}")


async def test_one_question_answers_all_who_ask_meanwhile_and_a_few_guests_are_asked_at_once(
    api: Platform, tmp_path: Path
) -> None:
    slow: Any = Slow()
    serving = asyncio.create_task(Answers(api.side.nc, "slow", Disks(tmp_path), slow).serve())
    vms = [f"6ba7b810-9dad-11d1-80b4-00c04fd4{number:04x}" for number in range(answers.MOST_GUESTS)]

    async def ask(vm: str) -> Any:
        reply = await api.side.nc.request("nebula.nodes.slow.asks.guest", json.dumps({"vm": vm}).encode(), timeout=30)
        return json.loads(reply.data)

    async def heard() -> bool:
        with contextlib.suppress(NoRespondersError):
            return b'"invalid_request"' in (await api.side.nc.request("nebula.nodes.slow.asks.guest", b"{}")).data
        return False

    await eventually(heard, "the node listens")
    asking = [asyncio.create_task(ask(vm)) for vm in [*vms, vms[0], vms[0]]]
    await eventually(lambda: len(slow.asked) == len(vms), "all are asked")
    refused = await ask("6ba7b810-9dad-11d1-80b4-00c04fd4ffff")
    assert refused["problem"]["code"] == "node_busy"
    slow.go_on.set()
    said = [(await each)["ok"]["hostname"] for each in asking]
    assert said == [f"of {vm}" for vm in [*vms, vms[0], vms[0]]]
    assert sorted(slow.asked) == sorted(vms)
    assert (await ask(vms[0]))["ok"]["hostname"], "and again"
    assert len(slow.asked) == len(vms) + 1
    await end([serving])


async def test_it_is_described(api: Platform) -> None:
    document = await api.get("/v1/openapi.json")
    described = document["paths"]["/v1/projects/{project}/vms/{vm}/guest"]["get"]
    reference = described["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    assert {"hostname", "os", "interfaces", "filesystems"} <= schema["properties"].keys()


async def test_the_command(node: Node) -> None:
    await node.running(name="spoken")
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "cli.main", "vm", "guest", "spoken", "--url", node.api.url]
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"spoken" in out.splitlines()[0]
    assert any(line.split()[:4] == [b"/", b"vda1", b"ext4", b"4.0"] for line in out.splitlines()), out
