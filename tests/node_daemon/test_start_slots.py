"""So many at a time, and none that hangs keeps the others waiting for long."""

import asyncio

import pytest

from node_daemon.reconcile import start_slots
from node_daemon.reconcile.start_slots import StartSlots
from runtime.tasks.tasks import end
from tests.waiting import eventually


async def test_no_more_than_there_are() -> None:
    free, inside, most = StartSlots(2), 0, 0

    async def start() -> None:
        nonlocal inside, most
        async with free.one():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(start() for _ in range(10)))
    assert most == 2


async def test_one_that_hangs_gives_up_its_place_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_slots, "LONGEST", 0.01)
    free, inside = StartSlots(1), 0

    async def hang() -> None:
        nonlocal inside
        async with free.one():
            inside += 1
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hang()) for _ in range(3)]
    await eventually(lambda: inside == 3, "all got in")
    await asyncio.sleep(0.05)
    await end(tasks)
    monkeypatch.setattr(start_slots, "LONGEST", 60)
    async with free.one():
        waiting = asyncio.create_task(hang())
        await asyncio.sleep(0.01)
        assert inside == 3, "there is one place, not four"
    await eventually(lambda: inside == 4, "it gets in")
    await end([waiting])
