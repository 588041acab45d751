"""What a daemon makes of the answers to its heartbeats, without a bus."""

import json
from typing import Any

import pytest
from nats.aio.msg import Msg

from domain.contract import Introduction, LeaseGranted, NodeInfo
from node_daemon.membership.membership import Membership
from runtime import subjects
from runtime.bus import requests
from runtime.bus.replies import InvalidReply
from runtime.node_keys import ANSWER, HEARTBEAT, MAC, REGISTER, answering, tag, valid


class Bus:
    is_connected = False


def answer(body: bytes) -> Msg:
    return Msg(None, data=body)  # type: ignore[arg-type]


LOST = json.dumps({"problem": {"code": "lease_lost", "detail": "register again", "status": 409}}).encode()


@pytest.fixture
def member() -> Membership:
    async def describe() -> NodeInfo:
        raise AssertionError("nobody asks")

    bus: Any = Bus()
    made = Membership(bus, "n1", "i", describe)
    made._accept(LeaseGranted(lease=3))
    return made


async def test_a_lease_that_is_given_again_counts_on(member: Membership) -> None:
    """Reports are numbered by the time since the lease was given: a lower number would be an old report."""
    since = member.since
    await member.on_answer(answer(LOST))
    assert member.lease == 0
    member._accept(LeaseGranted(lease=3))
    assert (member.lease, member.since) == (3, since)
    member._accept(LeaseGranted(lease=4))
    assert member.lease == 4 and member.since > since


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hi",
        b"null",
        b"[]",
        b"5",
        b'{"problem": 5}',
        b'{"problem": {"code": ["lease_lost"]}}',
        b"[" * 5000,
        b"\xff",
    ],
)
async def test_an_answer_that_makes_no_sense_changes_nothing(member: Membership, body: bytes) -> None:
    await member.on_answer(answer(body))
    assert member.lease == 3


KEY = b"k" * 32


def signed_answer(request: bytes, body: bytes, subject: str = subjects.heartbeat("n1"), key: bytes = KEY) -> Msg:
    mac = tag(key, ANSWER, subject, answering(request, body))
    return Msg(None, data=body, headers={MAC: mac})  # type: ignore[arg-type]


async def test_with_a_key_only_an_answer_of_handlers_to_its_own_heartbeat_counts(member: Membership) -> None:
    member._key = KEY
    subject = subjects.heartbeat("n1")
    given = member.sign_heartbeat(subject, b"beat")
    assert given is not None and valid(KEY, HEARTBEAT, subject, b"beat", given[MAC])
    told = json.dumps({"ok": {"challenge": f"7-{'0' * 32}"}}).encode()
    for forged in (
        answer(LOST),
        signed_answer(b"another", LOST),
        signed_answer(b"beat", LOST, key=b"x" * 32),
        signed_answer(b"beat", LOST, subject=subjects.register("n1")),
        signed_answer(b"another", told),
        answer(told),
    ):
        await member.on_answer(forged)
        assert (member.lease, member.challenge) == (3, "")
    await member.on_answer(signed_answer(b"beat", told))
    assert member.challenge and member.challenged.is_set()
    await member.on_answer(signed_answer(b"beat", LOST))
    assert member.lease == 0


async def test_with_a_key_only_handlers_grant_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once they have challenged it. An answer to an earlier request is none to this one."""
    info = NodeInfo(
        node="n1", region="r", vcpus=1, memory_mib=1, disk_gib=1, virt_type="test", seed_url="http://192.0.2.1/",
        version="0",
    )  # fmt: skip

    async def describe() -> NodeInfo:
        return info

    bus: Any = Bus()
    member = Membership(bus, "n1", "i", describe, key=KEY)
    subject, granted = subjects.register("n1"), b'{"ok": {"lease": 5, "seconds": 3}}'
    requested: list[bytes] = []
    forged: list[Any] = [lambda _: answer(granted), lambda _: signed_answer(b"earlier", granted, subject)]

    async def ask(_: object, to: str, body: bytes, __: object, headers: dict[str, str]) -> Msg:
        assert to == subject and valid(KEY, REGISTER, to, body, headers[MAC])
        requested.append(body)
        if forged:
            found: Msg = forged.pop()(body)
            return found
        challenge = Introduction.model_validate_json(body).challenge
        told = granted if challenge else json.dumps({"ok": {"challenge": f"7-{'0' * 32}"}}).encode()
        return signed_answer(body, told, subject)

    monkeypatch.setattr(requests, "ask", ask)
    introduction = Introduction(info=info, daemon=member.daemon)
    for _ in range(2):
        with pytest.raises(InvalidReply, match="MAC"):
            await member._register(introduction)
    assert (await member._register(introduction)).lease == 5
    assert len(requested) == 4
