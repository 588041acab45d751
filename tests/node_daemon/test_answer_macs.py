"""A node's answers are its own: they have a MAC for the gateway, which covers the question."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats import connect
from nats.aio.client import Client
from nats.aio.msg import Msg

from runtime import answer_keys
from runtime.answer_keys import is_answer, sealed, session_key, unsealed
from runtime.ask_keys import CHALLENGE, NEW, SIGNATURE, public_key, signed
from runtime.bus.frames import Frames
from runtime.local.servers import NatsServer
from runtime.node_keys import MAC, SIZE, NodeKeys
from runtime.tasks.tasks import end
from tests.event_keys import KEY, STRANGER
from tests.node_daemon.documents import new_vm
from tests.node_daemon.test_asks import Asked


@pytest.fixture
async def nc(nats_server: NatsServer) -> AsyncIterator[Client]:
    connection = await connect(nats_server.url)
    yield connection
    await connection.close()


@pytest.fixture
async def node(nc: Client, tmp_path: Path) -> AsyncIterator[Asked]:
    """A node that handlers have given the keys of two event keys."""
    made = Asked(nc, new_vm(), tmp_path / "node")
    serving = made.serve()
    secrets = (STRANGER.secret, KEY.secret)
    made.proofs.learn(
        tuple(public_key(each) for each in secrets), tuple(answer_keys.derived(each, made.name) for each in secrets)
    )
    await nc.flush()
    yield made
    await end([serving])


def proven(node: Asked, question: dict[str, str], answer: Msg, secret: bytes = KEY.secret, name: str = "") -> bool:
    key = answer_keys.derived(secret, name or node.name)
    return is_answer(key, node.subject(), question, node.body(), answer.headers or {}, answer.data)


async def test_an_answer_is_from_this_node_to_this_question(node: Asked) -> None:
    question, other = await node.by_a_gateway(), await node.by_a_gateway()
    answer = await node.send(question)
    assert answer.data == b"secret" and answer.headers is not None
    assert proven(node, question, answer)
    assert not proven(node, other, answer), "to another question of the same content"
    assert not proven(node, question, answer, STRANGER.secret)
    assert not proven(node, question, answer, name="other")
    for name, value in (("Nebula-Cursor", "9-9"), ("Nebula-More", "true"), (MAC, "00" * 16), ("Nebula-New", "x")):
        forged = Msg(answer._client, data=answer.data, headers={**answer.headers, name: value})
        assert not proven(node, question, forged)
    assert not proven(node, question, Msg(answer._client, data=b"Secret", headers=answer.headers))
    assert not proven(node, question, Msg(answer._client, data=answer.data))


async def test_a_refusal_has_a_mac_too(node: Asked) -> None:
    subject = node.subject("unheard-of")
    question = await node.by_a_gateway(subject)
    answer = await node.send(question, subject)
    assert json.loads(answer.data)["problem"]["code"] == "unknown_question"
    key = answer_keys.derived(KEY.secret, node.name)
    assert is_answer(key, subject, question, node.body(), answer.headers or {}, answer.data)


async def test_who_is_no_gateway_gets_no_mac(node: Asked) -> None:
    for headers in (None, {CHALLENGE: NEW}, {CHALLENGE: await node.challenge(), SIGNATURE: "00" * 64}):
        assert MAC not in ((await node.send(headers)).headers or {})


async def test_each_gateway_gets_the_mac_of_its_own_event_key(node: Asked) -> None:
    question = signed(STRANGER.secret, node.subject(), await node.challenge(), node.body())
    answer = await node.send(question)
    assert proven(node, question, answer, STRANGER.secret) and not proven(node, question, answer)


async def test_handlers_that_give_no_key_get_no_mac(node: Asked) -> None:
    """Of an earlier version, or of one that gives fewer keys than it names."""
    node.proofs.learn((public_key(KEY.secret),))
    assert (await node.send(await node.by_a_gateway())).data == b"secret"
    node.proofs.learn((public_key(STRANGER.secret), public_key(KEY.secret)), (b"k" * SIZE,))
    assert MAC not in ((await node.send(await node.by_a_gateway())).headers or {})


def test_only_its_node_opens_a_sealed_key() -> None:
    keys = NodeKeys(b"r" * SIZE, b"e" * SIZE)
    text = sealed(b"secret" * 4, keys.each("n1"))
    for each in keys.each("n1"):
        assert unsealed(text, each) == b"secret" * 4, "while the root is replaced, it has either key"
    for stranger in (*keys.each("n2"), b"x" * SIZE):
        assert unsealed(text, stranger) is None


def test_frames_are_for_one_session_direction_and_once() -> None:
    key = answer_keys.derived(KEY.secret, "n1")
    there, here, again = (
        session_key(key, *each) for each in (("1-a", "to.node"), ("1-a", "to.gateway"), ("2-a", "to.node"))
    )
    one, other = Frames(there, here, 1), Frames(here, there, 1)
    first, second, third = (one.seal(b"D", each) for each in (b"first", b"second", b"third"))
    assert b"first" not in first
    assert other.open(second) == (b"D", b"second")
    relabelled = third[:8] + b"E" + third[9:]
    for wrong in (second, first, b"", first[:7], third[:8], third[:-1], bytes(40), b"\xff" + third[1:], relabelled):
        assert other.open(wrong) is None
    assert one.open(third) is None, "its own"
    assert Frames(here, again, 1).open(third) is None, "of another session"
    assert other.open(third) == (b"D", b"third")
