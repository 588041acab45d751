"""Whatever handlers and nodes answer, the API says what is so: 502 for nonsense, 413 for too much, never 500."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.aio.msg import Msg
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from domain.contract import CommandReply
from gateway.commands import accepted
from gateway.guests import console_log
from runtime import subjects
from tests.gateway.platform import VMS, Platform

BODIES = [
    *(b"", b"hi", b"null", b"[1]", b'{"ok": 7}', b'{"ok": {"position": "x"}}', b'{"ok": {}}', b"\xff\x00", b"[" * 9999),
    b'{"problem": {"status": "teapot"}}',
]


@asynccontextmanager
async def answering(
    api: Platform, subject: str, body: bytes, headers: dict[str, str] | None = None
) -> AsyncIterator[None]:
    async def answer(msg: Msg) -> None:
        await api.side.nc.publish(msg.reply, body, headers=headers)

    subscription = await api.side.nc.subscribe(subject, cb=answer)
    await api.side.nc.flush()
    try:
        yield
    finally:
        await subscription.unsubscribe()


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
async def test_a_node_that_answers_nonsense(api: Platform, body: bytes) -> None:
    vm = (await api.running())["vm"]["id"]
    some = b'"ok": {' in body  # an object, whatever is in it: of a guest all may be unknown
    for verb in ("console-log",) if some else ("console-log", "guest"):
        async with answering(api, subjects.ask("host-1", verb), body):
            answer = await api.http.get(f"{VMS}/{vm}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (502, "node_answer_invalid"), (verb, answer.text)
    for verb in ("console", "vnc"):
        if some:  # for a connection that is an answer: what follows it decides
            continue
        async with answering(api, subjects.ask("host-1", verb), body):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws{api.url.removeprefix('http')}{VMS}/{vm}/{verb}", proxy=None)
        assert refused.value.response.status_code == 502, verb


@pytest.mark.parametrize(
    "headers",
    [
        {"Nebula-Cursor": "1-2"},
        {"Nebula-Cursor": "x", "Nebula-More": "true"},
        {"Nebula-Cursor": "1-2", "Nebula-More": "perhaps"},
        {"Status": "503"},
    ],
)
async def test_a_piece_of_a_console_log_without_its_place(api: Platform, headers: dict[str, str]) -> None:
    vm = (await api.running())["vm"]["id"]
    async with answering(api, subjects.ask("host-1", "console-log"), b"text", headers):
        answer = await api.http.get(f"{VMS}/{vm}/console-log")
    assert (answer.status_code, answer.json()["code"]) in {(502, "node_answer_invalid"), (503, "node_unavailable")}


async def test_a_node_that_always_has_more_and_never_says_what(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    place = {"Nebula-Cursor": "1-2", "Nebula-More": "true"}
    async with answering(api, subjects.ask("host-1", "console-log"), b"", place):
        answer = await asyncio.wait_for(api.http.get(f"{VMS}/{vm}/console-log"), 60)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
async def test_handlers_that_answer_nonsense(api: Platform, body: bytes) -> None:
    (process,) = api.side.processes
    process.send_signal(19)  # stopped: what answers is the stranger below
    try:
        async with answering(api, subjects.command(subjects.SYSTEM, "tag", "create"), body):
            answer = await api.http.post("/v1/tags", json={"name": f"t-{uuid.uuid4().hex[:8]}"})
    finally:
        process.send_signal(18)
    assert (answer.status_code, answer.json()["code"]) == (502, "handlers_answer_invalid"), answer.text


async def test_handlers_of_an_earlier_version_that_do_not_know_the_command(api: Platform) -> None:
    """A repeat may reach others, which know it: during an upgrade both versions run."""
    (process,) = api.side.processes
    refusal = {"code": "unknown_command", "status": 404, "detail": "there is no command tag.create"}
    process.send_signal(19)
    try:
        async with answering(
            api, subjects.command(subjects.SYSTEM, "tag", "create"), json.dumps({"problem": refusal}).encode()
        ):
            answer = await api.http.post("/v1/tags", json={"name": f"t-{uuid.uuid4().hex[:8]}"})
    finally:
        process.send_signal(18)
    assert (answer.status_code, answer.json()["code"]) == (503, "handlers_outdated"), answer.text
    assert answer.headers["retry-after"] == "1"


AT = "2026-01-02T03:04:05Z"


def told(state: Any, record: Any = None, **more: Any) -> dict[str, Any]:
    """What handlers would say of a node that was cordoned, but for what is given."""
    whole = {
        **dict.fromkeys(("id", "verb", "kind", "resource", "project", "actor"), "x"),
        "status": "succeeded",
        "accepted_at": AT,
        "first": 1,
        "position": 1,
    }
    info = {
        "node": "x",
        "region": "r",
        "vcpus": 1,
        "memory_mib": 1,
        "disk_gib": 1,
        "virt_type": "t",
        "version": "1",
        "seed_url": "u",
    }
    node = {"id": "x", "info": info, "registered_at": AT, "updated_at": AT}
    operation = {"record": {**whole, **(record or {})}, "steps": []}
    return {"position": 1, "version": 1, "replayed": False, "operation": operation, "state": {**node, **state}, **more}


@pytest.mark.parametrize(
    "said",
    [
        told({"reservations": [1]}),
        told({"registered_at": "0001-01-01T00:00:00+14:00"}),
        told({"registered_at": [7]}),
        told({"holder": {"host": "h", "pid": {}, "since": AT}}),
        told({"info": "x"}),
        told({"id": ["x"]}),
        told({}, {"status": {"a": 1}}),
        told({}, {"status": None}),
        told({}, {"progress": [1]}),
        told({}, {"problem": {"type": 1, "title": [], "code": {}, "detail": None}}),
        told({}, {"accepted_at": "9999-12-31T23:59:59-14:00"}),
        told({}, position=float("inf")),
        told({}, position=10**30),
        told({}, position=-1),
        told({}, version="new"),
        told({}, operation={"record": [], "steps": 1}),
        told({}, operation={"record": {}, "steps": [{"position": "x", "type": 1, "time": AT}]}),
        {**told({}), "state": [1]},
    ],
    ids=lambda said: json.dumps(said)[:60],
)
async def test_handlers_that_accept_and_say_nonsense_of_it(
    api: Platform, said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever an answer makes of what they say, `openapi.json` holds for it, or it is not given."""
    seven = accepted.read("node", json.dumps({"ok": told({"registered_at": 7})}).encode())
    assert isinstance(seven, CommandReply) and seven.position == 1
    at = accepted.shown("node", seven).resource["registered_at"]
    assert at == "1970-01-01T00:00:07.000000Z"  # a time is one, however it is written

    async def request(*_: Any, **__: Any) -> Any:
        return Msg(api.gateway.nc, data=json.dumps({"ok": said}).encode())

    with monkeypatch.context() as patch:
        patch.setattr(api.gateway.nc, "request_again", request)
        answer = await api.http.post("/v1/nodes/host-1/cordon?wait=1s")
    assert (answer.status_code, answer.json()["code"]) == (502, "handlers_answer_invalid"), answer.text
    assert api.gateway.writes.newest < 10**9


async def test_a_node_that_says_a_byte_at_a_time(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who asks for much waits no longer than for little."""
    monkeypatch.setattr(console_log, "PATIENCE", 0.2)
    vm = (await api.running())["vm"]["id"]
    place = {"Nebula-Cursor": "1-2", "Nebula-More": "true"}
    async with answering(api, subjects.ask("host-1", "console-log"), b"x", place):
        answer = await asyncio.wait_for(api.http.get(f"{VMS}/{vm}/console-log?bytes=8388608"), 60)
    assert (answer.status_code, answer.headers["nebula-more"], set(answer.content)) == (200, "true", {ord("x")})


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKl2a0cT4rPcPMB0t1tCkm2bs8LPmZSUhjxS3nO3c8nO "


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"ssh_keys": [KEY + f"{n}-" + "c" * 8800 for n in range(60)]}, "ssh_keys"),
        (
            {
                "labels": {f"k{n}": "v" * 255 for n in range(64)},
                "ssh_keys": [KEY + f"{n}" + "c" * 9000 for n in range(58)],
            },
            "ssh_keys",
        ),
    ],
)
async def test_a_create_that_no_event_can_hold(api: Platform, body: dict[str, object], field: str) -> None:
    size = {"name": "big", "image": "base", "vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    raw = json.dumps({**size, **body}).encode()
    assert 450_000 < len(raw) < 1024 * 1024
    answer = await api.http.post(VMS, content=raw, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large"), answer.text[:300]
    assert answer.json()["errors"][0]["field"] == field


async def test_a_project_that_no_event_can_hold(api: Platform) -> None:
    keys = [KEY + f"{n}-" + "c" * 8700 for n in range(60)]
    answer = await api.http.patch("/v1/projects/default", json={"ssh_keys": keys})
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large"), answer.text[:300]
    assert answer.json()["errors"][0]["field"] == "ssh_keys"


async def test_a_refusal_is_not_stored_where_its_reply_subject_says(api: Platform) -> None:
    nc = api.side.nc
    before = await api.side.store.last_position()
    command = json.dumps({"args": {"tag": "x", "name": "x"}, "context": {"actor": "mallory"}}).encode()
    for subject in (
        subjects.command(subjects.SYSTEM, "tag", "nosuch"),
        subjects.command(subjects.SYSTEM, "tag", "create"),
        subjects.cached_images("host-1"),
    ):
        await nc.publish(subject, command, reply=subjects.event(subjects.SYSTEM, "tag", "x"))
    await nc.flush()
    assert (await api.http.post("/v1/tags", json={"name": f"t-{uuid.uuid4().hex[:8]}"})).status_code == 202
    assert await api.side.store.last_position() == before + 1
