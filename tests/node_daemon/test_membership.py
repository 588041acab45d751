"""What a daemon makes of the answers to its heartbeats, without a bus."""

import json
from typing import Any

import pytest
from nats.aio.msg import Msg

from domain.contract import LeaseGranted, NodeInfo
from node_daemon.membership.membership import Membership


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
