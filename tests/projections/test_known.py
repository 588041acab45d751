"""The aggregates that the only writer knows from its last batches are not read again; queries are sent together."""

import asyncio
from typing import Any

import psycopg
import pytest

from eventstore.log.envelope import Ref
from projections import database
from projections.books import together
from projections.model import Row
from projections.transaction import KEPT, RECENT, kept
from runtime.local.servers import Postgres


def rows(first: int, number: int, position: int) -> dict[Ref, Row[Any]]:
    return {Ref("p", "vm", str(id_)): Row(None, 1, position) for id_ in range(first, first + number)}


def test_the_last_used_aggregates_are_kept() -> None:
    known = kept({}, rows(0, RECENT, 1), 1)
    assert known == rows(0, RECENT, 1)

    known = kept(known, rows(0, 1, 2), 1)
    known = kept(known, rows(1000, 10, 3), 10)

    assert len(known) == RECENT
    assert known == rows(11, RECENT - 11, 1) | rows(0, 1, 2) | rows(1000, 10, 3)


def test_of_a_large_batch_all_are_kept_and_nothing_else() -> None:
    assert kept(rows(0, 5, 1), rows(10, KEPT, 2), KEPT) == rows(10, KEPT, 2)


async def test_the_first_error_is_raised_after_all_have_ended() -> None:
    ended: list[int] = []

    async def fails(number: int) -> int:
        await asyncio.sleep(0.001 * number)
        ended.append(number)
        if number:
            raise ValueError(str(number))
        return number

    with pytest.raises(ValueError, match="3"):
        await together(map(fails, (0, 3, 1)))
    assert sorted(ended) == [0, 1, 3]
    assert await together(map(fails, (0, 0))) == [0, 0]


async def test_queries_at_the_same_time_get_their_own_rows(postgres: Postgres) -> None:
    """In a pipeline and without one, also if one of them fails."""
    async with await database.connect(postgres.dsn, "tests") as conn:
        asked = [database.select(conn, "SELECT %s::int AS number", [number]) for number in range(3)]
        async with conn.pipeline(), conn.transaction():
            assert await together(asked) == [[{"number": number}] for number in range(3)]
        for numbers in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1)):
            asked = [database.select(conn, "SELECT 1 / %s::int AS number", [number]) for number in numbers]
            with pytest.raises(psycopg.Error, match="division by zero"):
                async with conn.pipeline(), conn.transaction():
                    await together(asked)
        assert await database.select(conn, "SELECT 1 AS number", []) == [{"number": 1}]
