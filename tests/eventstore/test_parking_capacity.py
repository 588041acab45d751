"""What is parked has a bound: so many open records of a source, and one that counts the rest."""

import asyncio
import json
import uuid
from datetime import UTC, datetime

import pytest
from nats.aio.client import Client

from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Unavailable
from eventstore.parking import capacity, parking as parking_module, refused
from eventstore.parking.capacity import Capacity
from eventstore.parking.parked import MORE, MOST_COUNT
from eventstore.parking.parking import LOG, NoRetry, NotParked, Parked, Parking, Status
from eventstore.parking.refused import Refused
from gateway.monitoring import parked_index
from gateway.monitoring.parked_index import Index
from runtime import subjects
from tests.waiting import eventually


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> str:
    """A source of this test's own, with room for three; what the server says counts for no time."""
    monkeypatch.setattr(capacity, "MOST_OPEN", 3)
    monkeypatch.setattr(capacity, "FRESH", 0.0)
    return uuid.uuid4().hex


@pytest.fixture
def ordered(source: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that each process reads from the first message on."""
    monkeypatch.setattr(parking_module, "ORDERED", {source: subjects.REPORTS})

    async def end(self: Capacity, stream: str) -> int:
        return 1000

    monkeypatch.setattr(Capacity, "_end", end)
    return source


async def meet(parking: Parking, source: str, *positions: int) -> int:
    """Park messages of these positions; how many records that made."""
    made = [
        await parking.park(source, str(n), subject=f"s.{n}", position=n, error=f"bad {n}", body=b"x") for n in positions
    ]
    return sum(made)


async def stored(nc: Client, source: str) -> dict[str, int]:
    """How many states there are of each record of a source."""
    info = await nc.jetstream().stream_info(subjects.PARKED, subjects_filter=subjects.parked_of(source))
    return {subject.rsplit(".", 1)[-1]: count for subject, count in (info.state.subjects or {}).items()}


async def test_what_finds_no_room_is_counted_in_one_record(nc: Client, source: str) -> None:
    parking = Parking(nc)
    assert await meet(parking, source, *range(1, 51)) == 3
    await parking._capacity.write_counts()
    assert await meet(parking, source, *range(51, 101)) == 0
    await parking._capacity.write_counts()
    assert await stored(nc, source) == {"1": 1, "2": 1, "3": 1, MORE: 1}
    more = await parking.get(source, MORE)
    assert (more.count, more.position, more.subject, more.open) == (97, 100, "s.100", True)
    assert "bad 100" in more.error
    with pytest.raises(NoRetry):
        await parking.retry(source, MORE, actor="alice")
    assert await meet(parking, uuid.uuid4().hex, 1, 2) == 2, "another source has room of its own"


async def test_a_closed_record_makes_room_for_what_comes_then(nc: Client, source: str) -> None:
    parking = Parking(nc)
    await meet(parking, source, 1, 2, 3, 4)
    await parking.drop(source, "1", actor="alice", reason="seen")
    assert await meet(parking, source, 5, 6) == 1
    await parking._capacity.write_counts()
    assert set(await stored(nc, source)) == {"1", "2", "3", "5", MORE}
    assert (await parking.get(source, MORE)).count == 2


async def closed(parking: Parking, source: str, *positions: int) -> None:
    """Park messages of these positions one after the other, and drop each."""
    for position in positions:
        assert await meet(parking, source, position) == 1
        await parking.drop(source, str(position), actor="alice", reason="seen")


@pytest.fixture
def few_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three closed records are kept, and two more until the oldest are forgotten; they are read two at a time."""
    for name, number in {"MOST_CLOSED": 3, "SLACK": 2, "AT_A_TIME": 2}.items():
        monkeypatch.setattr(capacity, name, number)


async def test_the_oldest_closed_records_are_forgotten(nc: Client, source: str, few_closed: None) -> None:
    parking = Parking(nc)
    await meet(parking, source, 1)
    await closed(parking, source, 5, 4, 3, 2)
    assert set(await stored(nc, source)) == {"1", "5", "4", "3", "2"}
    await closed(parking, source, 9)
    assert await stored(nc, source) == {"1": 1, "3": 2, "2": 2, "9": 2}, "open ones stay; closed ones by their closing"
    for key in ("4", "5"):
        with pytest.raises(NotParked):
            await parking.get(source, key)
    assert (await parking.get(source, "1")).open
    await closed(parking, source, *range(10, 30))
    assert len(await stored(nc, source)) <= 1 + 3 + 2


async def test_what_somebody_opened_again_is_not_forgotten(nc: Client, source: str, few_closed: None) -> None:
    parking = Parking(nc)
    await closed(parking, source, *range(1, 5))
    again = record("1", source).model_dump_json().encode()
    await nc.jetstream().publish(subjects.parked(source, "1"), again)
    await closed(parking, source, 5)
    assert set(await stored(nc, source)) == {"1", "3", "4", "5"}
    assert (await parking.get(source, "1")).open


async def test_what_was_forgotten_is_not_parked_again(nc: Client, ordered: str, few_closed: None) -> None:
    parking = Parking(nc)
    await meet(parking, ordered, 1)
    await closed(parking, ordered, *range(2, 7))
    assert set(await stored(nc, ordered)) == {"1", "4", "5", "6", MORE}
    again = Parking(nc)
    assert await meet(again, ordered, *range(1, 7)) == 0, "each reader begins with the first message"
    settled = await again.get(ordered, MORE)
    assert (settled.open, settled.count, settled.position) == (False, 0, 3)
    assert await meet(again, ordered, *range(7, 12)) == 2
    await again._capacity.write_counts()
    more = await again.get(ordered, MORE)
    assert (more.open, more.count, more.position) == (True, 3, 11)
    await again.drop(ordered, "1", actor="alice", reason="seen")
    await closed(again, ordered, *range(12, 18))
    assert ((await again.get(ordered, MORE)).count, (await again.get(ordered, MORE)).position) == (3, 13)
    assert await meet(Parking(nc), ordered, *range(1, 18)) == 0


async def test_a_record_is_closed_though_the_old_ones_cannot_be_forgotten(
    nc: Client, source: str, few_closed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: Capacity, source: str) -> None:
        raise Unavailable("the bus does not answer")

    monkeypatch.setattr(Capacity, "forget", away)
    parking = Parking(nc)
    await closed(parking, source, *range(1, 8))
    assert not (await parking.get(source, "1")).open


async def test_a_count_that_somebody_has_seen_begins_anew(nc: Client, source: str) -> None:
    parking = Parking(nc)
    await meet(parking, source, *range(1, 9))
    await parking._capacity.write_counts()
    assert (await parking.drop(source, MORE, actor="alice", reason="seen")).count == 5
    await meet(parking, source, 9)
    await parking._capacity.write_counts()
    more = await parking.get(source, MORE)
    assert (more.count, more.open) == (1, True)


async def test_what_two_processes_and_a_restart_read_is_counted_once(nc: Client, ordered: str) -> None:
    one, two = Parking(nc), Parking(nc)
    for first in range(1, 100, 10):
        await asyncio.gather(*(meet(each, ordered, *range(first, first + 10)) for each in (one, two)))
        await asyncio.gather(one._capacity.write_counts(), two._capacity.write_counts())
    again = Parking(nc)
    assert await meet(again, ordered, *range(1, 100)) == 0
    await again._capacity.write_counts()
    assert (await again.get(ordered, MORE)).count == 100 - len(await stored(nc, ordered)) + 1
    await again.drop(ordered, "1", actor="alice", reason="seen")
    await again.drop(ordered, MORE, actor="alice", reason="seen")
    assert await meet(Parking(nc), ordered, *range(1, 100)) == 0, "what was only counted stays so"


async def test_nothing_is_lost_of_a_count_while_the_bus_is_away(
    nc: Client, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parking = Parking(nc)
    await meet(parking, source, *range(1, 6))
    with monkeypatch.context() as patch:
        patch.setattr(parking._capacity, "_timeout", 0.0)
        with pytest.raises(Unavailable):
            await parking._capacity.write_counts()
    parking.only_count(source, subject="s.6", position=6, error="bad 6")
    await parking._capacity.write_counts()
    assert (await parking.get(source, MORE)).count == 3


def message(position: int, headers: dict[str, str] | None = None, body: bytes = b"x" * 100_000) -> Recorded:
    return Recorded(position, "nebula.events.a.vm.x", headers or {}, body, datetime.now(UTC))


async def test_what_waits_to_be_parked_is_bounded(nc: Client, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused, "MOST_WAITING", 5)
    monkeypatch.setattr(refused, "LOG", source)
    waiting = Refused()
    for position in range(1, 13):
        waiting.put(message(position, {"a": "b" * (position % 2 * 5000)}), "bad")
    held = [*waiting._waiting, *waiting._counted]
    assert len(held) <= 10 + 5, "a bound for those that wait, and one for those that are counted"
    assert not any(len(each.headers.get("a", "")) > 4000 for each in held), "and not with all that they said"
    parking = Parking(nc)
    task = asyncio.create_task(waiting.run(parking))
    try:
        await eventually(lambda: not waiting._waiting and not waiting._counted, "nothing waits")
    finally:
        task.cancel()
    await parking._capacity.write_counts()
    assert (await parking.get(source, "1")).size == 100_000
    assert (await parking.get(source, MORE)).count >= 2 + 5
    with pytest.raises(NotParked):
        await parking.get(source, "4")


def record(key: str, source: str = LOG, **more: object) -> Parked:
    given = {"source": source, "key": key, "subject": "s", "position": 1, "error": "e", "time": datetime.now(UTC)}
    return Parked.model_validate({**given, **more})


def test_the_gateway_keeps_so_many_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked_index, "MOST_OPEN", 4)
    monkeypatch.setattr(parked_index, "MOST_CLOSED", 2)
    index = Index()
    for position in range(1, 11):
        index.apply(position, record(str(position)))
    assert (index.open, index.more, index.counts()) == (4, 6, {LOG: 4})
    for position in range(11, 15):
        index.apply(position, record(str(position - 10), status=Status.DROPPED))
    assert (index.open, len(index.places(Status.DROPPED, None, 0, 10))) == (0, 2)


def test_a_count_is_no_open_message_and_goes_on_after_it_was_closed() -> None:
    index = Index()
    index.apply(1, record("7"))
    index.apply(2, record(MORE, count=5))
    index.apply(3, record(MORE, count=8))
    assert (index.open, index.more, index.counts(), index.more_by_source()) == (1, 8, {LOG: 1}, {LOG: 8})
    assert index.places(Status.OPEN, LOG, 0, 10) == [(1, 1), (2, 3)]
    index.close(record(MORE, status=Status.DROPPED, count=8))
    assert (index.open, index.more) == (1, 0)
    index.apply(4, record(MORE, status=Status.DROPPED, count=8))
    index.apply(5, record(MORE, count=2))
    assert (index.open, index.more) == (1, 2)
    index.apply(6, record("7", status=Status.DROPPED))
    index.apply(7, record("7"))
    assert index.open == 0, "a message that was closed stays so"


@pytest.mark.parametrize("position", [9 * 10**18, 2**80])
async def test_a_count_beyond_the_end_of_its_stream_hides_nothing(
    nc: Client, source: str, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking_module, "ORDERED", {source: subjects.EVENTS})
    lie = {"source": source, "key": MORE, "subject": "s", "error": "e", "time": "2026-01-01T00:00:00Z"}
    body = json.dumps({**lie, "status": "dropped", "count": 0, "position": position}).encode()
    await nc.jetstream().publish(subjects.parked(source, MORE), body)
    parking = Parking(nc)
    assert await meet(parking, source, *range(1, 9)) == 3
    await parking._capacity.write_counts()
    more = await parking.get(source, MORE)
    assert (more.position, more.open) == (8, True)
    assert more.count >= 5, "what is no record at all counts as one message"


async def test_a_count_beyond_all_bounds_ends_nobody(nc: Client, source: str) -> None:
    lie = {"source": source, "key": MORE, "subject": "s", "error": "e", "time": "2026-01-01T00:00:00Z", "position": 1}
    for count in (MOST_COUNT, 10**400):
        await nc.jetstream().publish(subjects.parked(source, MORE), json.dumps({**lie, "count": count}).encode())
        parking, index = Parking(nc), Index()
        index.apply(1, await parking.get(source, MORE))
        assert 0 < index.more <= MOST_COUNT
        await meet(parking, source, *range(1, 9))
        await parking._capacity.write_counts()
        index.apply(2, await parking.get(source, MORE))
        assert 0 < index.more <= MOST_COUNT


def test_a_record_that_nobody_can_name_is_none() -> None:
    index = Index()
    for source, key in (("\xfc", "1"), (LOG, "\xfc"), (LOG, "k" * 200), ("a b", "1")):
        index.apply(1, record(key, source))
    assert (index.open, index.counts()) == (0, {})
