"""The log is read ahead in large batches, without a gap, and ends as its source does."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import pytest

from eventstore.log.envelope import Recorded
from eventstore.log.store import Unavailable
from projections import ahead
from projections.ahead import Ahead
from projections.books import Judged, judged

AT = datetime(2026, 1, 1, tzinfo=UTC)


def messages(first: int, last: int) -> list[Recorded]:
    return [Recorded(number, f"nebula.events.p.vm.{number}", {}, b"", AT) for number in range(first, last + 1)]


class Source:
    """Delivers messages up to `last`, `size` at a time. Then it raises `error`, or waits for ever."""

    def __init__(self, last: int, size: int, error: Exception | None = None) -> None:
        self.last, self.size, self.error = last, size, error
        self.delivered = 0
        self.closed = False

    async def messages(self) -> AsyncGenerator[list[Judged], None]:
        try:
            while self.delivered < self.last:
                first, self.delivered = self.delivered + 1, min(self.last, self.delivered + self.size)
                yield [judged(each) for each in messages(first, self.delivered)]
                await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
        finally:
            self.closed = True


async def taken(source: Source, goal: int, until: int) -> list[int]:
    """The last positions of the batches up to a position. Raises what the source raises."""
    found, before = [], 0
    async with contextlib.aclosing(Ahead(source.messages(), goal).batches()) as batches:
        async for batch in batches:
            positions = [recorded.position for recorded, _ in batch]
            assert positions == list(range(before + 1, before + 1 + len(batch)))
            before = positions[-1]
            found.append(before)
            if before >= until:
                break
    return found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST", 100)
    monkeypatch.setattr(ahead, "QUIET", 0.05)


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
async def test_batches_are_full_up_to_the_goal(size: int) -> None:
    source = Source(1000, size)
    found = await taken(source, goal=950, until=1000)
    assert found[:9] == [100, 200, 300, 400, 500, 600, 700, 800, 900]
    assert found[-1] == 1000
    assert source.closed


async def test_batches_up_to_the_goal_may_be_larger() -> None:
    source, found = Source(1000, 7), list[int]()
    async with contextlib.aclosing(Ahead(source.messages(), 700, 300).batches()) as batches:
        async for batch in batches:
            assert len(batch) <= (300 if batch[0][0].position <= 700 else 100)
            found.append(batch[-1][0].position)
            if found[-1] == 1000:
                break
    assert found[:2] == [300, 600]


async def test_large_messages_make_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST_BYTES", 5000)
    taken_until, delivered = 0, 0

    async def large() -> AsyncGenerator[list[Judged], None]:
        nonlocal delivered
        for number in range(1, 201):
            delivered = number
            yield [judged(Recorded(number, f"nebula.events.p.vm.{number}", {}, b"x" * 1000, AT))]

    async with contextlib.aclosing(Ahead(large(), 200).batches()) as batches:
        async for batch in batches:
            assert len(batch) <= 5
            taken_until = batch[-1][0].position
            for _ in range(20):
                await asyncio.sleep(0)
            assert delivered <= taken_until + 6
    assert taken_until == 200


async def test_after_the_goal_it_does_not_wait_for_more() -> None:
    assert await taken(Source(5, 1), goal=0, until=5) == [1, 2, 3, 4, 5]


async def test_messages_that_are_missing_before_the_goal_are_not_waited_for() -> None:
    """Somebody deleted the last messages of the log."""
    assert await taken(Source(42, 10), goal=5000, until=42) == [42]


async def test_it_does_not_read_far_ahead() -> None:
    source = Source(100_000, 10)
    async with contextlib.aclosing(Ahead(source.messages(), 100_000).batches()) as batches:
        first: Sequence[object] = await anext(batches)
        for _ in range(2000):
            await asyncio.sleep(0)
        assert len(first) == 100
        assert source.delivered <= 100 + 100 + 10


async def test_what_was_delivered_before_an_error_comes_before_the_error() -> None:
    source, found = Source(142, 10, Unavailable("gone")), list[int]()
    with pytest.raises(Unavailable):
        async with contextlib.aclosing(Ahead(source.messages(), 5000).batches()) as batches:
            async for batch in batches:
                found.append(batch[-1][0].position)
    assert found == [100, 142]
    assert source.closed


async def test_it_ends_with_its_source() -> None:
    async def two() -> AsyncGenerator[list[Judged], None]:
        yield [judged(each) for each in messages(1, 2)]

    found = [len(batch) async for batch in Ahead(two(), 5000).batches()]
    assert found == [2]


async def test_a_cancelled_reader_closes_its_source() -> None:
    source = Source(5, 1)
    task = asyncio.create_task(taken(source, goal=0, until=100))
    while source.delivered < 5:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert source.closed
