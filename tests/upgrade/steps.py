"""The orders in which processes are replaced: the documented one (docs/upgrades.md), the way back, and any other."""

import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from tests.upgrade.bed import AUTHORITY, FLEETS, TWICE, Bed, Version, init

#: The documented order, of roles and numbers of their processes.
ORDER: tuple[tuple[str, int], ...] = (
    (AUTHORITY, 0),
    *((role, number) for role in TWICE for number in (0, 1)),
    *((fleet, 0) for fleet in FLEETS),
)


async def replace(made: Bed, version: Version, steps: Iterable[tuple[str, int]]) -> AsyncIterator[str]:
    """Replace these processes, one after the other. Yields what was done."""
    for role, number in steps:
        if role == AUTHORITY:
            await init(made, version)
        await made.replace(version, role, number)
        yield f"{role} {number} is {version.name}"


async def documented(made: Bed, _: random.Random) -> AsyncIterator[str]:
    async for step in replace(made, made.now, ORDER):
        yield step


async def back(made: Bed, _: random.Random) -> AsyncIterator[str]:
    async for step in replace(made, made.now, ORDER):
        yield step
    async for step in replace(made, made.before, reversed(ORDER)):
        yield step


async def any_order(made: Bed, chance: random.Random) -> AsyncIterator[str]:
    """The authority is the first to be replaced, and the last on the way back."""
    others = [step for step in ORDER if step[0] != AUTHORITY]
    async for step in replace(made, made.now, [ORDER[0], *chance.sample(others, len(others))]):
        yield step
    async for step in replace(made, made.before, [*chance.sample(others, len(others)), ORDER[0]]):
        yield step


ORDERS: Mapping[str, Callable[[Bed, random.Random], AsyncIterator[str]]] = {
    "documented": documented,
    "back": back,
    "any": any_order,
}
