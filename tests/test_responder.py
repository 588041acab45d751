"""Only inboxes are answered, in every responder; nonsense in an answer is told from an answer."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg

from runtime.bus import replies
from runtime.bus.replies import InvalidReply, Refusal
from runtime.bus.responder import INBOX, Responder
from runtime.local.servers import NatsServer
from tests.eventstore.log import connection

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "reply",
    [
        *("", "nebula.events.system.tag.x", "nebula.nodes.n1.wanted.vm.x", "$JS.API.STREAM.DELETE.NEBULA_EVENTS"),
        *("_INBOX", "_INBOX.", "_INBOX.>", "_INBOX.*.x", "_INBOX.a b", "_INBOX.a\n", "x_INBOX.a", "_INBOX..a"),
        *("$KV.NEBULA_KEYS.x", "_INBOX.a.nebula.é", "_inbox.a"),
    ],
)
def test_no_inbox(reply: str) -> None:
    assert not INBOX.fullmatch(reply)


def test_inboxes_of_clients() -> None:
    client = Client()
    for reply in (client.new_inbox(), "_INBOX.Ab3.17", "_INBOX_node7.Ab3-_.x.y"):
        assert INBOX.fullmatch(reply), reply


async def test_a_request_that_cannot_be_answered_is_dropped(nats_server: NatsServer) -> None:
    async with connection(nats_server.url) as nc:
        responder, done = Responder(nc), []

        async def on_request(msg: Msg) -> None:
            if responder.accepts(msg):
                done.append(msg.data)
                await responder.answer(msg, b"answered")

        await nc.subscribe("test.responder", cb=on_request)
        stolen = await nc.subscribe("test.elsewhere")
        await nc.publish("test.responder", b"stray", reply="test.elsewhere")
        await nc.publish("test.responder", b"none")
        assert (await nc.request("test.responder", b"asked")).data == b"answered"
        assert (done, responder.dropped) == ([b"asked"], 2)
        with pytest.raises(asyncio.TimeoutError):
            await stolen.next_msg(timeout=0.05)


def test_no_other_code_answers() -> None:
    """Whoever answers a message goes through the responder."""
    direct = re.compile(r"\.respond\(|publish\(\s*(msg|message)\.reply")
    rooms = ("handlers", "gateway", "projections", "node_daemon", "runtime", "cli")
    found = [
        str(file.relative_to(ROOT))
        for room in rooms
        for file in (ROOT / room).rglob("*.py")
        if direct.search(file.read_text())
    ]
    assert found == ["runtime/bus/responder.py"]


NONSENSE = [
    *(b"", b"hi", b"null", b"17", b"[]", b"{}", b'{"ok": null}', b'{"ok": 1}', b'{"ok": []}', b'{"problem": {}}'),
    *(b'{"problem": "x"}', b'{"problem": {"code": "x", "status": 200, "detail": "d"}}', b"\xff\xfe", b"[" * 100_000),
    b'{"problem": {"code": "X Y", "status": 404, "detail": "d"}}',
    b'{"problem": {"code": "x", "status": "NaN", "detail": "d"}}',
    b'{"problem": {"code": "x", "status": 404, "detail": 7}}',
    b'{"problem": {"code": "x", "status": 404, "detail": "' + b"d" * 5000 + b'"}}',
    b'{"problem": {"code": "x", "status": 404, "detail": "d", "field": {}}}',
]


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: repr(body[:40]))
def test_invalid_replies(body: bytes) -> None:
    with pytest.raises(InvalidReply) as caught:
        replies.read(body)
    assert len(str(caught.value)) < 300


def test_answers() -> None:
    assert replies.read(b'{"ok": {"a": [1]}, "more": 1}') == {"a": [1]}
    refused = replies.read(b'{"problem": {"code": "vm_not_found", "status": 404, "detail": "d", "new": 1}}')
    assert refused == Refusal(code="vm_not_found", status=404, detail="d")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["ok", "problem", "code", "status", "x"]), inner),
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_an_answer_a_refusal_or_nonsense(body: bytes) -> None:
    try:
        found: Any = replies.read(body)
    except InvalidReply:
        return
    assert isinstance(found, dict | Refusal)
