"""One query of the read models serves all who wait for operations to end."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest

from gateway.endings import Endings
from projections import operation_rows
from projections.database import Pool, ReadModelsUnavailable
from projections.position import Position
from tests.waiting import eventually


class Rows:
    """The rows of operations: those that have ended, the queries so far, and an error to raise."""

    def __init__(self) -> None:
        self.position = Position()
        self.done: set[str] = set()
        self.queries: list[list[str]] = []
        self.error: Exception | None = None

    async def ended(self, _: Pool, ids: list[str]) -> tuple[list[Any], int]:
        self.queries.append(ids)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return [{"id": id_} for id_ in ids if id_ in self.done], self.position.value


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    made = Rows()
    monkeypatch.setattr(operation_rows, "ended", made.ended)
    yield made


async def end(waiter: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(waiter, 30)


def endings(rows: Rows, stop: asyncio.Event | None = None) -> Endings:
    return Endings(cast(Pool, None), rows.position, stop or asyncio.Event())


async def test_one_query_serves_all(rows: Rows) -> None:
    made = endings(rows)
    with ExitStack() as stack:
        waiters = {str(number): stack.enter_context(made.waiting(str(number))) for number in range(300)}
        twice = stack.enter_context(made.waiting("7"))
        await eventually(lambda: len(rows.queries) == 1, "the first query")
        rows.done = {str(number) for number in range(200)}
        rows.position.set(5)
        assert await end(waiters["7"]) == await end(twice) == ({"id": "7"}, 5)
        assert len(rows.queries) == 2
        assert [id_ for id_, waiter in waiters.items() if waiter.done()] == sorted(rows.done, key=int)
        rows.done = set(waiters)
        rows.position.set(6)
        assert await end(waiters["299"]) == ({"id": "299"}, 6)
        assert rows.queries[2] == [str(number) for number in range(200, 300)]


async def test_an_end_between_the_query_and_its_answer_is_noticed(rows: Rows) -> None:
    made = endings(rows)
    with made.waiting("a"):
        await eventually(lambda: bool(rows.queries), "the query is sent")
        with made.waiting("b") as later:
            rows.done = {"b"}
            rows.position.set(1)
            assert await end(later) == ({"id": "b"}, 1)


async def test_nobody_is_asked_for_when_all_have_left(rows: Rows) -> None:
    made = endings(rows)
    with made.waiting("a") as left:
        await eventually(lambda: bool(rows.queries), "the query is sent")
    assert left.cancelled()
    with made.waiting("b") as waiter:
        rows.done = {"b"}
        rows.position.set(3)
        assert await end(waiter) == ({"id": "b"}, 3)
    assert all("a" not in ids for ids in rows.queries[1:])


async def test_who_waits_hears_of_the_stop_and_of_errors(rows: Rows) -> None:
    stop = asyncio.Event()
    made = endings(rows, stop)
    rows.error = ReadModelsUnavailable("away")
    with made.waiting("a") as one, made.waiting("b") as other:
        for waiter in (one, other):
            with pytest.raises(ReadModelsUnavailable):
                await end(waiter)
    rows.error = None
    with made.waiting("a") as waiter:
        stop.set()
        assert await end(waiter) is None
