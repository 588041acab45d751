"""A search by time looks at the positions that it needs, and misses no event, whatever clocks have said."""

import random
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from projections import database, event_times, events
from projections.database import Pool
from projections.event_times import EventTimes
from runtime.local.servers import Postgres, create_database

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def pool(postgres: Postgres) -> AsyncIterator[Pool]:
    dsn = await create_database(postgres, f"test_{uuid.uuid4().hex}")
    async with await database.connect(dsn, "test", "public") as conn:
        await conn.execute(events.DDL.encode())
        await conn.execute("CREATE TABLE checkpoint (position bigint); INSERT INTO checkpoint VALUES (0)")
    made = database.pool(dsn, "test", "public")
    await made.open()
    yield made
    await made.close()


async def add(pool: Pool, times: dict[int, datetime], last: int) -> None:
    """Rows at these positions with these times; the index has reached position `last`."""
    async with pool.connection() as conn:
        for position, time in times.items():
            row: list[Any] = [position, time, time, "p", "vm", "v", "t", "a", None, None, "s", "{}", b"", "p"]
            marks = ", ".join(["%s"] * len(row))
            await conn.execute(f"INSERT INTO events ({', '.join(events.NAMES)}) VALUES ({marks})".encode(), row)
        await conn.execute("UPDATE checkpoint SET position = %s", [last])


async def compared(pool: Pool, known: EventTimes, times: dict[int, datetime], reached: int) -> None:
    """Each event of a range of times is inside of the positions; and these are not all, if the range is small."""
    for _ in range(40):
        ends = sorted(random.choice([*times.values()]) + timedelta(seconds=random.uniform(-5, 5)) for _ in range(2))
        for since, until in ((ends[0], ends[1]), (ends[0], None), (None, ends[1])):
            first, last, end = await known.positions(pool, since, until)
            assert end == reached
            inside = [
                position
                for position, time in times.items()
                if (since is None or time >= since) and (until is None or time <= until)
            ]
            assert all(first <= position <= last for position in inside), (since, until, first, last)


async def test_no_event_is_missed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_times, "WIDTH", 20)
    known, times = EventTimes(), dict[int, datetime]()
    assert await known.positions(pool, BEGIN, None) == (1, 0, 0)
    last = 0
    for _ in range(6):
        new: dict[int, datetime] = {}
        for _ in range(random.randint(1, 70)):
            last += (
                random.choice([1, 1, 1, 1, 45]) if random.random() < 0.1 else 1
            )  # (a hole, perhaps of a whole block)
            off = random.choice([0, 0, 0, 0.01, -0.01, 3600, -3600]) if random.random() < 0.1 else 0
            new[last] = BEGIN + timedelta(seconds=last + off)
        times |= new
        await add(pool, new, last)
        await compared(pool, known, times, last)


async def test_a_range_is_narrow(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_times, "WIDTH", 10)
    times = {position: BEGIN + timedelta(seconds=position) for position in range(1, 101)}
    await add(pool, times, 105)
    known = EventTimes()
    at = times[55]
    assert await known.positions(pool, at, at) == (51, 60, 105)
    assert await known.positions(pool, at, None) == (51, 105, 105)
    assert await known.positions(pool, None, times[1] - timedelta(seconds=1)) == (1, 0, 105)
    assert await known.positions(pool, times[100] + timedelta(seconds=1), None) == (106, 105, 105)
