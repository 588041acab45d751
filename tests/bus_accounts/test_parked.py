"""Records of parked messages: projections only add some, and handlers close and delete them."""

import asyncio
import contextlib

import pytest

from eventstore.log.jetstream import Stream, Unavailable
from eventstore.parking import capacity, parking
from eventstore.parking.parked import MORE
from eventstore.parking.parking import LOG, REPORTS, Parking
from runtime import subjects
from runtime.tasks.tasks import end
from tests.bus_accounts.conftest import Guarded
from tests.waiting import eventually


async def test_handlers_delete_what_the_projections_leave(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MOST_CLOSED", 2), ("SLACK", 0), ("FRESH", 0.0)):
        monkeypatch.setattr(capacity, name, value)
    monkeypatch.setattr(parking, "TIDY", 0.1)
    projections, handlers = (Parking(guarded.connections[name]) for name in ("projections", "handlers"))
    for _ in range(20):
        await guarded.connections["handlers"].jetstream().publish("nebula.events.p.vm.x", b"x")
    for number in range(1, 5):
        await projections.park(LOG, str(number), subject="nebula.x", position=number, error="x")
    for number in range(1, 5):
        projections.only_count(LOG, subject="nebula.x", position=10 + number, error="x")
        await projections._capacity.write_counts()
    stream = Stream(guarded.connections["handlers"], subjects.PARKED, timeout=5)
    states = handlers._capacity._states
    assert await states(LOG) == {MORE: 4, "1": 1, "2": 1, "3": 1, "4": 1}
    before = await stream.last_of(subjects.parked(LOG, MORE))
    for number in range(1, 5):
        await handlers.drop(LOG, str(number), actor="a", reason="r")

    task = asyncio.create_task(handlers.keep_tidy())

    async def tidy() -> bool:
        found = await states(LOG)
        return found == {MORE: 1, "3": 2, "4": 2}

    try:
        await eventually(tidy, "the oldest are deleted")
    finally:
        await end([task])
    assert await stream.last_of(subjects.parked(LOG, MORE)) == before
    assert (await projections.get(LOG, MORE)).count == 4


@pytest.mark.parametrize("role", ["projections", "gateway"])
async def test_other_roles_neither_close_nor_put_back(guarded: Guarded, role: str) -> None:
    other, handlers = Parking(guarded.connections[role], timeout=0.5), Parking(guarded.connections["handlers"])
    subject = "nebula.nodes.n1.reports.vm.x"
    await handlers.park(REPORTS, "1", subject=subject, position=1, error="x", body=b"{}")
    reports = Stream(guarded.connections["handlers"], subjects.REPORTS, timeout=5)
    for attempt in (other.drop(REPORTS, "1", actor="a", reason="r"), other.retry(REPORTS, "1", actor="a")):
        with contextlib.suppress(Unavailable):
            await attempt
    assert (await handlers.get(REPORTS, "1")).open
    assert await reports.last_position() == 0
    await handlers.retry(REPORTS, "1", actor="a")
    assert await reports.last_position() == 1
