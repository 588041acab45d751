"""The offset of a node's clock is told from its heartbeats, whatever way each of them took."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from structlog.testing import capture_logs

from domain.contract import Heartbeat
from eventstore.log.store import EventStore
from handlers.managers.liveness import Liveness
from handlers.world.world import World
from runtime import subjects
from runtime.clock_offset import LEAST, WINDOW, ClockOffset, warning

NOW = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)


def after(*heard: tuple[float, float]) -> float | None:
    """The offset after heartbeats of a clock so far ahead, each so long on its way."""
    clock = ClockOffset()
    for number, (ahead, way) in enumerate(heard):
        sent = NOW + timedelta(seconds=number)
        clock.note(sent + timedelta(seconds=ahead), sent + timedelta(seconds=way))
    return clock.seconds()


@pytest.mark.parametrize("ahead", [300.0, 0.0, -300.0])
def test_the_way_of_a_heartbeat_is_left_out(ahead: float) -> None:
    assert after((ahead, 9.0), (ahead, 0.004), (ahead, 30.0)) == pytest.approx(ahead - 0.004)


def test_a_few_heartbeats_say_nothing_and_old_ones_are_forgotten() -> None:
    assert after() is None
    assert after(*[(5.0, 0.0)] * (LEAST - 1)) is None
    assert after(*[(5.0, 0.0)] * 9, *[(0.5, 0.0)] * WINDOW) == 0.5
    assert after(*[(-5.0, 0.0)] * 9, *[(0.5, 0.0)] * WINDOW) == 0.5


def test_the_ends_of_time_are_offsets_too() -> None:
    clock = ClockOffset()
    for sent in (datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), NOW):
        clock.note(sent, NOW)
    assert clock.seconds() is not None


def test_a_warning_says_which_way() -> None:
    assert warning(None, 2) is None
    assert warning(2.0, 2) is None and warning(-2.0, 2) is None
    assert "2.1 s ahead" in (warning(2.1, 2) or "")
    assert "2.1 s behind" in (warning(-2.1, 2) or "")


def test_handlers_say_once_that_it_is_off_and_once_that_it_is_right() -> None:
    known = SimpleNamespace(lost=False, lease=1, holder=SimpleNamespace(boot="b", pid=1, host="h"))
    world = cast(World, SimpleNamespace(node=lambda _: known, watch=World().watch))
    liveness = Liveness(cast(EventStore, None), world, 15, 2.0)

    def hear(ahead: float) -> None:
        at = datetime.now(UTC) + timedelta(seconds=ahead)
        beat = Heartbeat(node="n1", at=at, boot="b", wanted_position=0, lease=1)
        liveness.hear(subjects.heartbeat("n1"), beat.model_dump_json().encode())

    with capture_logs() as lines:
        for ahead in (300,) * WINDOW + (0,) * 2 * WINDOW:
            hear(ahead)
    assert [line["event"] for line in lines] == ["clock of a node is off", "clock of a node is right again"]
    assert lines[0]["node"] == "n1" and lines[0]["offset_seconds"] > 290 and "ahead" in lines[0]["detail"]
