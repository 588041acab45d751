"""One way to ask on the bus and one to answer: whatever happens at the other end is one of a few cases."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.base import Category, Rejected
from domain.contract import Caller, CommandRequest, Leaving
from eventstore.log.store import Conflict, Unavailable
from eventstore.vault.vault import Erased
from handlers.refusals import refusal
from runtime.bus import replies
from runtime.bus.pace import Pace
from runtime.bus.quick_client import QuickClient
from runtime.bus.replies import MOST_DETAIL, InvalidReply, Refusal
from runtime.bus.requests import NobodyThere, Patience, Refused, Silent, Unanswered, ask, request
from runtime.bus.responder import Answer, Responder
from runtime.local.servers import NatsServer
from tests.eventstore.log import connection
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
#: So long that a test which waited for it would be seen.
LONG = 60.0
SUBJECT = "test.requests"


@pytest.fixture
async def nc(nats_server: NatsServer) -> AsyncIterator[Client]:
    made = QuickClient()  # as all roles
    await made.connect(nats_server.url)
    yield made
    await made.close()


async def test_nobody_is_there(nc: Client) -> None:
    with pytest.raises(NobodyThere):
        await ask(nc, SUBJECT, b"", Patience(LONG))


async def test_somebody_comes_while_it_is_asked_again(nc: Client) -> None:
    asking = asyncio.create_task(ask(nc, SUBJECT, b"", Patience(LONG, in_all=LONG, nobody=LONG)))

    async def answer(msg: Msg) -> None:
        await msg.respond(b"here")

    await asyncio.sleep(0)
    await nc.subscribe(SUBJECT, cb=answer)
    assert (await asking).data == b"here"


@pytest.mark.parametrize(("patience", "tries"), [(Patience(0.02), 1), (Patience(0.02, in_all=0.06), 2)])
async def test_somebody_is_silent(nc: Client, patience: Patience, tries: int) -> None:
    heard = []

    async def hear(msg: Msg) -> None:
        heard.append(msg.data)

    await nc.subscribe(SUBJECT, cb=hear)
    with pytest.raises(Silent):
        await ask(nc, SUBJECT, b"again", patience)
    await eventually(lambda: len(heard) >= tries, "it was asked as often")
    assert set(heard) == {b"again"}


async def test_what_a_dead_process_had_received_is_answered_by_another(nc: Client) -> None:
    """Both are members of one queue group. The caller does not wait until its patience ends."""
    heard = []

    async def hear(msg: Msg) -> None:
        heard.append(msg)
        if len(heard) > 1:
            await msg.respond(b"the second message")

    await nc.subscribe(SUBJECT, queue="q", cb=hear)
    assert (await ask(nc, SUBJECT, b"", Patience(0.02, in_all=LONG))).data == b"the second message"


async def test_a_late_answer_to_the_first_message_counts(nc: Client) -> None:
    """It was sent again meanwhile, and nobody answers that."""
    heard: list[Msg] = []
    await nc.subscribe(SUBJECT, cb=partial(keep, heard))
    pace = Pace(0.02, 1.0)
    pace.note(0.0)
    asking = asyncio.create_task(ask(nc, SUBJECT, b"", Patience(LONG, in_all=LONG), pace=pace))
    await eventually(lambda: len(heard) >= 2, "it was sent again")
    await heard[0].respond(b"late")
    assert (await asking).data == b"late"
    assert pace.seconds > 0.02, "the time of the first message was noted, so the next request waits longer"
    assert not nc._resp_map, "nobody waits for answers to the others"


async def keep(heard: list[Msg], msg: Msg) -> None:
    heard.append(msg)


async def test_nobody_is_left_to_send_it_to_again(nc: Client) -> None:
    """It may have been carried out, but nobody will ever answer: the caller need not wait for that."""
    heard: list[Msg] = []
    subscription = await nc.subscribe(SUBJECT, cb=partial(keep, heard))
    asking = asyncio.create_task(ask(nc, SUBJECT, b"", Patience(0.3, in_all=LONG)))
    await eventually(lambda: heard, "it was sent")
    await subscription.unsubscribe()
    with pytest.raises(Unanswered):
        await asking


def test_the_pace_follows_the_answers() -> None:
    pace = Pace(0.5, 2.5)
    assert list(islice(pace.pauses(), 4)) == [1, 2, 4, 8]
    for _ in range(100):
        pace.note(0.004)
    assert list(islice(pace.pauses(), 4)) == [0.5, 1, 2, 4]
    for _ in range(100):
        pace.note(1.0)
    assert 1.0 < pace.seconds < 1.1, "answers take that long: it is not sent again before"
    pace.note(60.0)
    assert pace.seconds == 2.5


async def test_the_bus_is_away(nats_server: NatsServer) -> None:
    async with connection(nats_server.url) as nc:
        await nc.close()
        with pytest.raises(Unanswered) as caught:
            await ask(nc, SUBJECT, b"", Patience(LONG))
        assert type(caught.value) is Unanswered


def bug(_: dict[str, Any]) -> Any:
    raise AssertionError("it is not read")


async def test_what_an_answer_says(nc: Client) -> None:
    said = [replies.accepted(Leaving(boot="a")), replies.refused(Refusal(code="x", status=404, detail="d")), b"hi"]

    async def answer(msg: Msg) -> None:
        await msg.respond(said[int(msg.data)])

    await nc.subscribe(SUBJECT, cb=answer)
    assert await request(nc, SUBJECT, b"0", Patience(LONG), Leaving.model_validate) == Leaving(boot="a")
    with pytest.raises(Refused) as refused:
        await request(nc, SUBJECT, b"1", Patience(LONG), bug)
    assert refused.value.refusal.code == "x"
    for nonsense, reader in ((b"2", bug), (b"0", CommandRequest.model_validate)):
        with pytest.raises(InvalidReply):
            await request(nc, SUBJECT, nonsense, Patience(LONG), reader)


SECRET = "hunter2"
FAILURES: list[tuple[Exception, str, int, str | None]] = [
    (Rejected("wrong_phase", "d" * (MOST_DETAIL + 1), Category.CONFLICT, field="vm"), "wrong_phase", 409, "vm"),
    (Unavailable(SECRET), "log_unavailable", 503, None),
    (Conflict(SECRET), "log_unavailable", 503, None),
    (Erased(SECRET), "vm_deleted", 410, None),
    (RuntimeError(SECRET), "internal_error", 500, None),
    (KeyError(SECRET), "internal_error", 500, None),
]


@pytest.mark.parametrize(
    ("error", "code", "status", "field"), FAILURES, ids=[type(each).__name__ for each, *_ in FAILURES]
)
async def test_what_goes_wrong_is_one_problem(
    nc: Client, error: Exception, code: str, status: int, field: str | None
) -> None:
    responder, noted = Responder(nc, refusal), []

    async def fail(_: Msg) -> Answer:
        raise error

    async def serve(msg: Msg) -> None:
        await responder.carry_out(msg, fail, lambda _, error, refused: noted.append((error, refused.code)))

    await nc.subscribe(SUBJECT, cb=serve)
    found = replies.read((await ask(nc, SUBJECT, b"", Patience(LONG))).data)
    assert isinstance(found, Refusal)
    assert (found.code, found.status, found.field) == (code, status, field)
    assert SECRET not in found.detail and len(found.detail) <= MOST_DETAIL
    assert noted == [(error, code)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"no json", None),
        (b'{"args": {}, "context": {"actor": "a", "key": "x"}}', "context.key"),
        (b'{"args": [], "context": {"actor": "a"}}', "args"),
        (b'{"args": {}}', "context"),
    ],
)
async def test_what_is_no_command_is_named(nc: Client, body: bytes, field: str | None) -> None:
    responder = Responder(nc)

    async def work(msg: Msg) -> Answer:
        CommandRequest.model_validate_json(msg.data)
        raise AssertionError("it was read")

    await nc.subscribe(SUBJECT, cb=partial(responder.carry_out, work=work))
    found = replies.read((await ask(nc, SUBJECT, body, Patience(LONG))).data)
    assert isinstance(found, Refusal)
    assert (found.code, found.status, found.field) == ("invalid_request", 422, field)


async def test_who_cannot_know_leaves_a_request_to_others(nc: Client) -> None:
    responder = Responder(nc)

    async def unknown(_: Msg) -> None:
        return None

    async def known(msg: Msg) -> Answer:
        return Answer(msg.data, {"Nebula-Offset": "7"})

    await nc.subscribe(SUBJECT, cb=partial(responder.carry_out, work=unknown))
    await nc.subscribe(SUBJECT, cb=partial(responder.carry_out, work=known))
    answer = await ask(nc, SUBJECT, b"bytes", Patience(LONG))
    assert (answer.data, answer.headers) == (b"bytes", {"Nebula-Offset": "7"})


def test_a_request_says_what_callers_always_said() -> None:
    request = CommandRequest(args={"vm": "x", "force": True}, context=Caller(actor="alice", operation="o"))
    said = json.loads(request.body())
    assert said["args"] == {"vm": "x", "force": True}
    assert {name: value for name, value in said["context"].items() if value} == {"actor": "alice", "operation": "o"}


def test_no_other_code_asks() -> None:
    """Whoever asks another process of ours goes through the client; JetStream's own API is spoken in `eventstore`."""
    direct = re.compile(r"\b_?(nc|bus|client)\.request\(")
    rooms = ("domain", "handlers", "gateway", "projections", "node_daemon", "cli")
    files = [file for room in rooms for file in (ROOT / room).rglob("*.py")]
    assert [str(file.relative_to(ROOT)) for file in files if direct.search(file.read_text())] == []
