"""The question where the log ends: shared by commands that wait, and never older than the command."""

import asyncio
import contextlib

from eventstore.log.store import EventStore
from handlers.commands import log_end
from handlers.commands.log_end import LogEnd


class Store(EventStore):
    """A log whose end moves by one with each question."""

    def __init__(self) -> None:
        self.asked = 0
        self.storing = asyncio.Event()
        self.storing.set()

    async def batch(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.storing.wait(), seconds)

    async def last_position(self) -> int:
        self.asked += 1
        mine = self.asked
        await asyncio.sleep(0.01)
        return mine


async def test_commands_that_wait_share_one_question() -> None:
    store = Store()
    end = LogEnd(store)
    assert await asyncio.gather(*(end.position() for _ in range(20))) == [1] * 20


async def test_a_later_command_gets_a_later_answer() -> None:
    """Else a revocation that was stored before the command would not count."""
    store = Store()
    end = LogEnd(store)
    first = asyncio.create_task(end.position())
    while not store.asked:
        await asyncio.sleep(0)
    assert [*await asyncio.gather(end.position(), end.position())] == [2, 2]
    assert await first == 1


async def test_a_question_waits_for_a_batch_and_takes_more_commands_along() -> None:
    store = Store()
    store.storing.clear()
    end = LogEnd(store)
    first = asyncio.create_task(end.position())
    await asyncio.sleep(0)
    second = asyncio.create_task(end.position())
    await asyncio.sleep(0)
    assert store.asked == 0
    store.storing.set()
    assert [*await asyncio.gather(first, second)] == [1, 1]


async def test_a_batch_that_is_not_stored_delays_no_question_for_long() -> None:
    store = Store()
    store.storing.clear()
    async with asyncio.timeout(log_end.PAUSE + 10):
        assert await LogEnd(store).position() == 1
