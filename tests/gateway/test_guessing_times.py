"""A tenant measures how long refusals take: what belongs to others takes no other time than what does not exist.

Only ranks are compared, and the two kinds of calls alternate, so a machine under load makes both slower alike.
"""

import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from runtime.local.servers import Postgres
from tests.gateway.matrix import NOWHERE, OTHER, World, world
from tests.gateway.platform import platform

#: Each time that is compared is the shortest of some calls: what else the machine does only makes calls longer.
ROUNDS, CALLS = 80, 3
Calls = Callable[[], Awaitable[object]]
#: How far the share of pairs may be from one half. Noise is at 0.05 (one standard deviation) with so many rounds.
TOLERATED = 0.2


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[World]:
    home: Path = tmp_path_factory.mktemp("times")
    async with platform(home, postgres) as api, world(api) as made:
        yield made


def share(first: Sequence[float], second: Sequence[float]) -> float:
    """The share of pairs in which the first is greater (Mann-Whitney's U over its maximum): 0.5 if they are alike."""
    pairs = [(a > b) + (a == b) / 2 for a in first for b in second]
    return sum(pairs) / len(pairs)


async def differ(one: Calls, other: Calls) -> float:
    """How far apart the times of two kinds of calls are, from 0 (none) to 0.5 (each of one is longer than all of the
    other).
    """
    taken: tuple[list[float], list[float]] = ([], [])
    choose = random.Random(7)
    for _ in range(ROUNDS):
        for which in choose.sample((0, 1), 2):
            calls = [(one, other)[which]() for _ in range(CALLS)]
            taken[which].append(min([await seconds(call) for call in calls]))
    return abs(share(*taken) - 0.5)


async def seconds(call: Awaitable[object]) -> float:
    began = time.perf_counter()
    await call
    return time.perf_counter() - began


PATHS = (
    "/v1/projects/{project}",
    "/v1/projects/{project}/vms/{vm}",
    "/v1/operations/{operation}",
    "/v1/images/{image}",
)
#: Reads of the past, of which the rows are others.
PAST = tuple(f"{path}?at={{at}}" for path in PATHS)


@pytest.mark.parametrize("path", (*PATHS, *PAST))
async def test_times_tell_nothing(there: World, path: str) -> None:
    at = str(await there.gateway.store.last_position())
    theirs = {**there.ids[OTHER], "at": at}

    async def refused(path: str) -> None:
        assert (await there.call("viewer", "GET", path)).status_code == 404

    def nothing() -> Awaitable[object]:
        guessed = str(uuid.uuid4())
        nobodys = {"project": NOWHERE, "vm": guessed, "operation": guessed, "image": "image-missing", "at": at}
        return refused(path.format_map(nobodys))

    found = await differ(lambda: refused(path.format_map(theirs)), nothing)
    assert found < TOLERATED


async def test_a_difference_would_be_seen(there: World) -> None:
    """One more query, as if only what exists were looked at."""
    path = f"/v1/projects/{NOWHERE}"

    async def more() -> None:
        await there.call("viewer", "GET", path)
        async with there.gateway.pool.connection() as connection:
            await connection.execute("select 1")

    found = await differ(more, lambda: there.call("viewer", "GET", path))
    assert found > TOLERATED
