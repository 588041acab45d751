"""A rule that depends on another aggregate holds, whatever happens at the same moment."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.handlers import pairs
from tests.handlers.pairs import Pair
from tests.handlers.platform import WriteSide, write_side
from tests.waiting import eventually

#: How many pairs are under way at a time.
AT_A_TIME = 24
Make = Callable[[WriteSide, str], Awaitable[Pair]]


@pytest.fixture(scope="module")
async def side(servers_home: Path) -> AsyncIterator[WriteSide]:
    """Two handlers processes, no nodes."""
    home = servers_home / "fences"
    home.mkdir()
    async with write_side(home) as made:
        await made.start()
        await made.start()
        await pairs.project(made, "shared")
        await pairs.available(made, "shared")
        yield made


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (pairs.create_and_project, 500),
        (pairs.create_and_tag, 500),
        (pairs.create_and_image, 500),
        (pairs.change_and_tag, 500),
        (pairs.rebuild_and_image, 500),
        (pairs.register_and_project, 150),
        (pairs.project_and_tag, 200),
        (pairs.tagged_project_and_tag, 200),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_exactly_one_of_a_pair_wins(side: WriteSide, make: Make, count: int) -> None:
    """By the answers, and by what stands in the log afterwards."""
    slots = asyncio.Semaphore(AT_A_TIME)
    won = {"use": 0, "delete": 0}

    async def run(n: int) -> None:
        async with slots:
            pair = await make(side, f"{n}-{uuid.uuid4().hex[:6]}")
            used, deleted = await both(side, pair, n)
            assert ("ok" in used) != ("ok" in deleted), (pair, used, deleted)
            won["use" if "ok" in used else "delete"] += 1
            await eventually(lambda: settled(pair, used="ok" in used), f"the log agrees: {pair}")

    await asyncio.gather(*(run(n) for n in range(count)))
    assert min(won.values()) > 0, f"nobody raced: {won}"


async def both(side: WriteSide, pair: Pair, n: int) -> tuple[dict[str, object], dict[str, object]]:
    """Both at a time, either of them a little earlier."""
    head_start = random.Random(n).uniform(-0.004, 0.004)

    async def after(seconds: float, command: tuple[str, str, str, dict[str, object]]) -> dict[str, object]:
        await asyncio.sleep(max(0.0, seconds))
        return await side.ask(*command)

    return await asyncio.gather(after(head_start, pair.use), after(-head_start, pair.delete))


async def settled(pair: Pair, *, used: bool) -> bool:
    return await pair.used() == used and await pair.deleted() != used
