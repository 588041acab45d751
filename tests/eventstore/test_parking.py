"""Parked messages: each once, kept for ever, open until somebody closes the record."""

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import pytest
from nats.aio.client import Client

from eventstore.documents import Documents
from eventstore.parking.parking import LOG, REPORTS, WANTED, Closed, NoRetry, NotParked, Parked, Parking, Status
from runtime import subjects
from runtime.bus.streams import ensure_all


@pytest.fixture
def parking(nc: Client) -> Parking:
    return Parking(nc)


def some_key() -> str:
    return uuid.uuid4().hex


async def parked(parking: Parking, source: str = REPORTS, **more: Any) -> str:
    key = some_key()
    given = {"subject": "nebula.nodes.n1.reports.v", "position": 7, "error": "no JSON", "body": b"hi", **more}
    assert await parking.park(source, key, **given)
    return key


async def test_a_message_is_parked_once_whatever_became_of_it(parking: Parking) -> None:
    key = await parked(parking, headers={"a": "b"})
    first = await parking.get(REPORTS, key)
    assert (first.body, first.headers, first.size, first.open) == (b"hi", {"a": "b"}, 2, True)
    assert not await parking.park(REPORTS, key, subject="other", position=9, error="again")
    assert await parking.get(REPORTS, key) == first
    dropped = await parking.drop(REPORTS, key, actor="alice", reason="seen")
    assert (dropped.status, dropped.actor, dropped.reason) == (Status.DROPPED, "alice", "seen")
    assert not await parking.park(REPORTS, key, subject="other", position=9, error="again")
    assert await parking.get(REPORTS, key) == dropped


async def test_two_who_park_it_at_once_make_one_record(parking: Parking) -> None:
    key = some_key()
    made = await asyncio.gather(
        *(parking.park(LOG, key, subject="s", position=1, error=f"{n}", body=b"x") for n in range(8))
    )
    assert made.count(True) == 1
    assert (await parking.get(LOG, key)).body is None, "the log has it"


async def test_a_retried_report_is_on_its_subject_again(parking: Parking, nc: Client) -> None:
    subject = f"nebula.nodes.n1.reports.vm.{some_key()}"
    key = await parked(parking, subject=subject, headers={"Nebula-Sign": "s"})
    for _ in range(2):  # the answer was lost: ask again
        assert (await parking.retry(REPORTS, key, actor="alice")).status is Status.RETRIED
    found = await nc.jetstream().get_last_msg(subjects.REPORTS, subject)
    assert (found.data, (found.headers or {})["Nebula-Sign"]) == (b"hi", "s")
    assert (await nc.jetstream().stream_info(subjects.REPORTS, subjects_filter=subject)).state.subjects == {subject: 1}
    with pytest.raises(Closed):
        await parking.drop(REPORTS, key, actor="bob", reason="no")


@pytest.mark.parametrize(
    ("source", "given"),
    [
        (LOG, {}),
        ("heartbeats", {}),
        (REPORTS, {"body": b"x" * (256 * 1024 + 1)}),
        (REPORTS, {"subject": "nebula.events.system.tag.forged"}),
    ],
)
async def test_what_cannot_be_put_back_says_so(parking: Parking, source: str, given: dict[str, Any]) -> None:
    key = await parked(parking, source, **given)
    with pytest.raises(NoRetry):
        await parking.retry(source, key, actor="alice")
    assert (await parking.get(source, key)).open


async def test_what_is_not_parked_cannot_be_closed(parking: Parking) -> None:
    with pytest.raises(NotParked):
        await parking.drop(LOG, "12345678", actor="alice", reason="r")


async def test_any_message_among_the_parked_is_a_record(parking: Parking, nc: Client) -> None:
    """Those of an earlier version, and what others put there."""
    js = nc.jetstream()
    before = {"Nebula-Subject": "nebula.nodes.n1.reports.v", "Nebula-Position": "12", "Nebula-Error": "e"}
    source, other = some_key(), some_key()
    config = (await js.stream_info(subjects.PARKED)).config
    await js.update_stream(replace(config, subjects=["nebula.parked.*"]))
    first = await js.publish(subjects.parked_before(source), b"\xff", headers=before)
    await ensure_all(js, 1)
    second = await js.publish(subjects.parked(other, "k"), b'{"source": "log", "key": "1"}')
    old = await parking.get(source, str(first.seq))
    assert (old.position, old.error, old.body, old.open) == (12, "e", b"\xff", True)
    assert (await parking.get(other, "k")).open
    assert (await parking.drop(source, str(first.seq), actor="alice", reason="r")).error == "e"
    found: dict[str, Parked] = {}
    async for batch in parking.follow():
        found |= {record.source: record for _, record in batch}
        if source in found and not found[source].open:
            break
    assert found[other].key == "k"
    assert second.seq


async def test_what_is_no_wanted_document_goes_with_its_record(parking: Parking, nc: Client) -> None:
    """Where nothing is wanted nobody ever replaces it: its node would say for ever that it cannot read it."""
    js, subject = nc.jetstream(), f"nebula.nodes.{some_key()}.wanted.vm.hello"

    async def stands() -> list[int]:
        return [found.position for found in await Documents(nc, subjects.WANTED).all(subject)]

    def place(position: int, **more: str) -> dict[str, Any]:
        return {"subject": subject, "position": position, "error": "no JSON", **more}

    async def dropped(**given: Any) -> Status:
        key = some_key()
        assert await parking.park(WANTED, key, **given)
        return (await parking.drop(WANTED, key, actor="alice", reason="seen")).status

    first = (await js.publish(subject, b"hi")).seq
    second = (await js.publish(subject, b"hello")).seq
    for given in (place(first), place(second, subject=subjects.wanted_of()), place(0), place(second + 1)):
        assert await dropped(**given) is Status.DROPPED
        assert await stands() == [second], "what stands there is something else"
    assert await dropped(**place(second)) is Status.DROPPED
    assert await stands() == []
