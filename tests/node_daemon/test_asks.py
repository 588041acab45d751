"""A node answers gateways only, and each question once."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nats import connect
from nats.aio.client import Client
from nats.aio.msg import Msg

from node_daemon.asks.answers import Answers
from node_daemon.asks.proofs import AskProofs
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from node_daemon.storage.disks import Disks
from runtime import ask_keys, subjects
from runtime.ask_keys import CHALLENGE, FRESH, NEW, SIGNATURE, Challenges, public_key, signed
from runtime.local.servers import NatsServer
from runtime.tasks.tasks import end
from tests.event_keys import KEY, STRANGER
from tests.node_daemon.documents import new_vm


@dataclass
class Asked:
    """A node that has its key, and what a sender on the bus gets from it. VMs have a console log of one line."""

    nc: Client
    name: str
    folder: Path
    proofs: AskProofs = field(default_factory=AskProofs)
    vm: str = field(default_factory=new_vm)

    def serve(self) -> "asyncio.Task[None]":
        self.proofs.required = True
        disks = Disks(self.folder)
        disks.console(self.vm).parent.mkdir(parents=True, exist_ok=True)
        disks.console(self.vm).write_text("secret")
        simulator = Simulator(SimulatedHost(self.name))
        return asyncio.create_task(Answers(self.nc, self.name, disks, simulator, self.proofs).serve())

    def subject(self, verb: str = "console-log") -> str:
        return subjects.ask(self.name, verb)

    def body(self, vm: str | None = None) -> bytes:
        return json.dumps({"vm": vm or self.vm, "tail": 99}).encode()

    async def send(self, headers: dict[str, str] | None, subject: str = "", body: bytes = b"") -> Msg:
        return await self.nc.request(subject or self.subject(), body or self.body(), timeout=5, headers=headers)

    async def challenge(self) -> str:
        answer = await self.send({CHALLENGE: NEW})
        assert json.loads(answer.data)["problem"]["code"] == "ask_unsigned"
        assert answer.headers is not None
        return answer.headers[CHALLENGE]

    async def by_a_gateway(self, subject: str = "", body: bytes = b"") -> dict[str, str]:
        """The headers of a question that a gateway signs now."""
        return signed(KEY.secret, subject or self.subject(), await self.challenge(), body or self.body())

    async def refuses(self, headers: dict[str, str] | None, subject: str = "", body: bytes = b"") -> str:
        """The detail of the refusal, which is counted."""
        before = self.proofs.refused
        answer = await self.send(headers, subject, body)
        problem: dict[str, Any] = json.loads(answer.data)["problem"]
        assert (problem["code"], problem["status"]) == ("ask_refused", 503)
        assert not answer.headers, "no challenge, and nothing else"
        assert self.proofs.refused == before + 1
        return str(problem["detail"])


@pytest.fixture
async def nc(nats_server: NatsServer) -> AsyncIterator[Client]:
    connection = await connect(nats_server.url)
    yield connection
    await connection.close()


@pytest.fixture
async def nodes(nc: Client, tmp_path: Path) -> AsyncIterator[list[Asked]]:
    made = [Asked(nc, name, tmp_path / name) for name in (new_vm(), new_vm())]
    tasks = [each.serve() for each in made]
    for each in made:
        each.proofs.learn((public_key(KEY.secret),))
    await asyncio.sleep(0)
    await nc.flush()
    yield made
    await end(tasks)


async def test_a_gateway_is_answered_and_its_question_is_worth_nothing_later(nodes: list[Asked]) -> None:
    node, _ = nodes
    question = await node.by_a_gateway()
    assert (await node.send(question)).data == b"secret"
    assert "repeat" in await node.refuses(question)


async def test_a_question_is_for_one_node_vm_and_verb(nodes: list[Asked]) -> None:
    node, other = nodes
    question = await node.by_a_gateway()
    assert "no gateway" in await node.refuses(question, body=node.body(new_vm()))
    assert "no gateway" in await node.refuses(question, subject=node.subject("guest"))
    assert "no gateway" in await other.refuses(question, body=node.body())
    for_other = signed(KEY.secret, other.subject(), question[CHALLENGE], other.body())
    assert "too old" in await other.refuses(for_other), "the challenge of another node"
    assert (await node.send(question)).data == b"secret", "what was refused did not use it up"


async def test_nobody_else_can_ask(nodes: list[Asked]) -> None:
    node, _ = nodes
    challenge = await node.challenge()
    for headers in (
        None,
        {CHALLENGE: challenge},
        {CHALLENGE: challenge, SIGNATURE: "00" * 64},
        {CHALLENGE: challenge, SIGNATURE: "é"},
        {CHALLENGE: NEW, SIGNATURE: "00" * 64},
        signed(STRANGER.secret, node.subject(), challenge, node.body()),
    ):
        assert "no gateway" in await node.refuses(headers)
    assert "no gateway" in await node.refuses(None, subject=node.subject("unheard-of"))


async def test_before_handlers_have_named_the_keys_nobody_is_answered(
    nodes: list[Asked], nc: Client, tmp_path: Path
) -> None:
    new = Asked(nc, new_vm(), tmp_path / "new")
    serving = new.serve()
    await asyncio.sleep(0)
    await nc.flush()
    for headers in (None, {CHALLENGE: NEW}):
        answer = await new.send(headers)
        assert "does not know the keys" in json.loads(answer.data)["problem"]["detail"]
    new.proofs.learn((public_key(STRANGER.secret), public_key(KEY.secret)))
    new.proofs.learn(())  # by handlers of an earlier version
    assert (await new.send(await new.by_a_gateway())).data == b"secret"
    new.proofs.learn((public_key(STRANGER.secret),))
    assert "no gateway" in await new.refuses(await new.by_a_gateway()), "its key was retired"
    await end([serving])


async def test_a_node_without_a_key_answers_as_before(nc: Client, tmp_path: Path) -> None:
    node = Asked(nc, new_vm(), tmp_path / "old")
    serving = node.serve()
    node.proofs.required = False
    await asyncio.sleep(0)
    await nc.flush()
    for headers in (None, {CHALLENGE: NEW}):
        assert (await node.send(headers)).data == b"secret"
    await end([serving])


def test_a_challenge_is_valid_for_some_seconds_and_once() -> None:
    now = [1000.9]
    made = Challenges(lambda: now[0])
    one, two = made.new(), made.new()
    assert one != two and ask_keys.FORM.fullmatch(one)
    assert made.fresh(one) and made.fresh(two)
    made.use(one)
    assert not made.fresh(one) and made.fresh(two)
    assert not Challenges(lambda: now[0]).fresh(two), "of another process"
    now[0] = 1000 + FRESH
    assert made.fresh(two)
    now[0] = 1000.1 + FRESH
    assert not made.fresh(two)
    now[0] = 1002 + FRESH
    made.use(made.new())
    assert len(made._used) == 1, "old ones are forgotten"
    later = "9" + two
    for forged in ("", "-", "new", "1000", later, "²-x-y", "\udcff-\udcff-\udcff"):
        assert not made.fresh(forged)


def test_only_challenges_are_signed() -> None:
    good = Challenges().new()
    for bad in ("", NEW, good + "\0{}", good + "\n", " " + good, good.upper() + "x"):
        with pytest.raises(ValueError, match="not a challenge"):
            signed(KEY.secret, "s", bad, b"{}")
