"""Who gives way to whom."""

import asyncio

from handlers.world.turns import MANY, Turns


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


async def test_what_somebody_waits_for_does_not_give_way() -> None:
    looked = iter([MANY])
    await Turns(lambda: next(looked)).wait(needed=lambda: True)
    assert list(looked) == [], "it looked once, and not a second time"


async def test_after_a_while_it_has_a_turn_of_its_own() -> None:
    turns = Turns(lambda: MANY)
    await turns.wait()
    again = asyncio.create_task(turns.wait())
    await asyncio.sleep(0)
    assert again.done(), "within its turn it waits for nobody"
