"""Records of parked messages: roles without the right to delete leave old ones, and handlers delete them."""

import asyncio

import pytest

from eventstore.log.jetstream import Stream
from eventstore.parking import capacity, parking
from eventstore.parking.parked import MORE
from eventstore.parking.parking import REPORTS, Parking
from runtime import subjects
from runtime.tasks.tasks import end
from tests.bus_accounts.conftest import Guarded
from tests.waiting import eventually


async def test_handlers_delete_what_the_gateway_leaves(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MOST_CLOSED", 2), ("SLACK", 0), ("FRESH", 0.0)):
        monkeypatch.setattr(capacity, name, value)
    monkeypatch.setattr(parking, "TIDY", 0.1)
    gateway, handlers = (Parking(guarded.connections[name]) for name in ("gateway", "handlers"))
    subject = subjects.parked(REPORTS, MORE)
    for number in range(1, 7):
        await gateway.park(REPORTS, str(number), subject="nebula.x", position=number, error="x")
        await gateway.drop(REPORTS, str(number), actor="a", reason="r")
        gateway.only_count(REPORTS, subject="nebula.x", position=100 + number, error="x")
        await gateway._capacity.write_counts()
    stream = Stream(guarded.connections["handlers"], subjects.PARKED, timeout=5)
    states = handlers._capacity._states
    assert (await states(REPORTS))[MORE] == 6
    assert len(await states(REPORTS)) == 7
    before = await stream.last_of(subject)

    task = asyncio.create_task(handlers.keep_tidy())

    async def tidy() -> bool:
        found = await states(REPORTS)
        return found == {MORE: 1, "5": 2, "6": 2}

    try:
        await eventually(tidy, "the oldest are deleted")
    finally:
        await end([task])
    assert await stream.last_of(subject) == before
    assert (await gateway.get(REPORTS, MORE)).count == 6
