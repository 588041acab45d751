"""A reader looks by itself while many messages come."""

import asyncio

import pytest

from runtime.bus import polling
from runtime.bus.polling import Polling
from tests.waiting import eventually

NEVER = 3600.0


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, what comes in a test comes within the window."""
    monkeypatch.setattr(polling, "WINDOW", NEVER)


async def test_it_begins_with_many_messages_in_a_short_time() -> None:
    pace = Polling()
    assert not pace.begins(polling.BUSY - 1)
    assert pace.begins(1)


async def test_messages_that_come_slowly_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "WINDOW", -1.0)
    pace = Polling()
    assert not any(pace.begins(polling.BUSY - 1) for _ in range(10))


async def test_it_is_calm_after_several_looks_in_a_row() -> None:
    pace = Polling()
    pace.begins(polling.BUSY)
    for count in (0, polling.FEW - 1, polling.FEW, 0):
        pace.note(count)
    assert (pace.looks, pace.calm) == (True, 1)
    pace.end()
    assert not pace.looks
    assert not pace.begins(polling.BUSY - 1), "it counts anew"


async def test_who_waits_for_a_message_shortens_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "SHORT_REST", 0.0)
    monkeypatch.setattr(polling, "REST", NEVER)
    pace = Polling()
    pace.hurry()
    await pace.rest()
    resting = asyncio.create_task(pace.rest())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not resting.done(), "one rest only"
    pace.hurry()
    await eventually(resting.done, "it rests no longer")
