"""Who gives way to whom."""

import asyncio

import pytest

from handlers.world import turns
from handlers.world.turns import MANY, Turns
from tests.waiting import eventually


async def test_in_a_calm_nobody_waits() -> None:
    await Turns(lambda: MANY - 1).wait()


async def test_a_manager_gives_way_until_it_is_calm() -> None:
    commands = [MANY]
    waiting = asyncio.create_task(Turns(lambda: commands[0]).wait())
    for _ in range(10):
        await asyncio.sleep(0.01)
    assert not waiting.done()
    commands[0] = 0
    await waiting


async def test_a_moment_between_two_groups_of_commands_is_no_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOOK", 0.0)
    monkeypatch.setattr(turns, "GIVES_WAY", 3600.0)
    monkeypatch.setattr(turns, "COUNTS", 3600.0)
    looks = 0

    def in_flight() -> int:
        nonlocal looks
        looks += 1
        return MANY if looks == 1 else 0

    waiting = asyncio.create_task(Turns(in_flight).wait())
    await eventually(lambda: looks >= 10, "it looks again and again")
    assert not waiting.done()
    waiting.cancel()


async def test_what_somebody_waits_for_does_not_give_way() -> None:
    looked = iter([MANY])
    await Turns(lambda: next(looked)).wait(needed=lambda: True)
    assert list(looked) == [], "it looked once, and not a second time"


async def test_after_a_while_it_has_a_turn_of_its_own() -> None:
    both = Turns(lambda: MANY)
    await both.wait()
    again = asyncio.create_task(both.wait())
    await asyncio.sleep(0)
    assert again.done(), "within its turn it waits for nobody"
