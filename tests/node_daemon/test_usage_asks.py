"""A node answers what its guests and its host used: to gateways only, with its MAC, from its own file."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats import connect
from nats.aio.client import Client

from domain.contract import HostUsageQuestion, UsageQuestion
from domain.guest_usage import UsageSeries
from node_daemon.asks.answers import Answers
from node_daemon.asks.proofs import AskProofs
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from node_daemon.storage.disks import Disks
from node_daemon.usage.host import Host
from node_daemon.usage.sampler import Sampler
from node_daemon.usage.series import Series
from runtime import answer_keys, subjects
from runtime.answer_keys import is_answer
from runtime.ask_keys import CHALLENGE, NEW, public_key, signed
from runtime.local.servers import NatsServer
from runtime.tasks.tasks import end
from tests.event_keys import KEY
from tests.node_daemon.documents import new_vm
from tests.node_daemon.test_simulator import boot_of
from tests.waiting import eventually


class Node:
    """A node with one guest, of which it has taken some samples in the last seconds."""

    def __init__(self, nc: Client, folder: Path, *, keeps: bool = True) -> None:
        self.nc, self.name, self.proofs = nc, new_vm(), AskProofs()
        self.simulator = Simulator(SimulatedHost(self.name))
        self.clock = time.time() - 300
        clocks = (lambda: self.clock, lambda: self.clock)
        series = Series(folder / "usage.series")
        self.sampler = Sampler(self.name, 30, self.simulator.usage, Host(folder).usage, series, *clocks)
        kept = self.sampler if keeps else None
        self.answers = Answers(nc, self.name, Disks(folder), self.simulator, self.proofs, kept)

    async def ask(self, verb: str, body: bytes, headers: dict[str, str] | None = None) -> Any:
        return await self.nc.request(subjects.ask(self.name, verb), body, timeout=10, headers=headers)

    async def said(self, verb: str, **question: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.ask(verb, json.dumps(question).encode())).data)
        return found


@pytest.fixture
async def nc(nats_server: NatsServer) -> AsyncIterator[Client]:
    connection = await connect(nats_server.url)
    yield connection
    await connection.close()


@pytest.fixture
async def node(nc: Client, tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(nc, tmp_path)
    serving = asyncio.create_task(made.answers.serve())
    await asyncio.sleep(0)
    await nc.flush()
    yield made
    await end([serving])


async def test_what_a_guest_and_the_host_used(node: Node) -> None:
    boot = boot_of(node.simulator)
    vm = boot.wanted.vm
    await node.simulator.start(boot)
    for _ in range(10):
        node.clock += 30
        await node.sampler.sample()
    answer = UsageSeries.model_validate((await node.said("usage", vm=vm, seconds=600, points=20))["ok"])
    assert answer.memory_bytes[:10] == (None,) * 10 and None not in answer.memory_bytes[11:]
    assert (answer.step_seconds, answer.size.cpus) == (30, boot.wanted.vcpus)
    host = UsageSeries.model_validate((await node.said("host-usage", seconds=600, points=500))["ok"])
    assert host.size.cpus and host.size.memory_bytes and host.size.disk_bytes
    assert None not in host.cpu[-9:] and None not in host.disk_bytes[-9:]
    nobody = UsageSeries.model_validate((await node.said("usage", vm=new_vm(), seconds=600, points=2))["ok"])
    assert nobody.cpu == (None, None) and nobody.size.cpus is None


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"vm": "x"},
        {"seconds": 0},
        {"seconds": 86401},
        {"seconds": "nan"},
        {"points": 0},
        {"points": 501},
        {"points": 1.5},
        {"vm": None},
    ],
)
async def test_questions_that_make_no_sense(node: Node, question: dict[str, object]) -> None:
    whole = {"vm": new_vm(), "seconds": 60, "points": 2, **question} if question else {}
    assert (await node.said("usage", **whole))["problem"]["code"] == "invalid_request"
    if "vm" not in question:
        assert (await node.said("host-usage", **whole))["problem"]["code"] == "invalid_request"


async def test_only_gateways_are_answered_and_the_answer_has_a_mac(node: Node) -> None:
    node.proofs.required = True
    node.proofs.learn((public_key(KEY.secret),), (answer_keys.derived(KEY.secret, node.name),))
    for verb, question in (
        ("usage", UsageQuestion(vm=new_vm(), seconds=60, points=2)),
        ("host-usage", HostUsageQuestion(seconds=60, points=2)),
    ):
        body, subject = question.model_dump_json().encode(), subjects.ask(node.name, verb)
        refused = json.loads((await node.ask(verb, body)).data)
        assert refused["problem"]["code"] == "ask_refused"
        challenge = (await node.ask(verb, body, {CHALLENGE: NEW})).headers[CHALLENGE]
        headers = signed(KEY.secret, subject, challenge, body)
        answer = await node.ask(verb, body, headers)
        assert "ok" in json.loads(answer.data)
        key = answer_keys.derived(KEY.secret, node.name)
        assert is_answer(key, subject, headers, body, answer.headers or {}, answer.data)
        assert not is_answer(key, subject, headers, body, answer.headers or {}, answer.data + b" ")


async def test_a_node_that_takes_no_samples_says_so(nc: Client, tmp_path: Path) -> None:
    node = Node(nc, tmp_path, keeps=False)
    serving = asyncio.create_task(node.answers.serve())
    await asyncio.sleep(0)
    await nc.flush()
    for verb, question in (("usage", {"vm": new_vm()}), ("host-usage", {})):
        problem = (await node.said(verb, seconds=60, points=2, **question))["problem"]
        assert (problem["code"], problem["status"]) == ("usage_not_kept", 409)
    await end([serving])


async def test_a_file_that_cannot_be_read_is_a_failure_of_this_question(node: Node, tmp_path: Path) -> None:
    (tmp_path / "usage.series").mkdir()
    problem = (await node.said("host-usage", seconds=60, points=2))["problem"]
    assert (problem["code"], problem["status"]) == ("node_failed", 503)
    (tmp_path / "usage.series").rmdir()

    async def answered() -> bool:
        return "ok" in await node.said("host-usage", seconds=60, points=2)

    await eventually(answered, "it is answered again")
