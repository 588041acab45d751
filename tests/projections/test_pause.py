"""When the read side gives way."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from projections.pause import BUSY, LATE, LINGER, MANY, WINDOW, Recent, pause

NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: The goal in seconds for an event that is in the log, until the read models show it.
SEEN = 0.25


def batch(size: int, age: float) -> tuple[int, datetime]:
    """The size, and when the last event was stored."""
    return size, NOW - timedelta(seconds=age)


def test_after_a_few_events_it_pauses_no_longer_than_it_worked() -> None:
    assert pause(*batch(MANY - 1, 0), 0.001, NOW, BUSY) == 0.001
    assert pause(*batch(1, 0), 1.0, NOW, BUSY) == LINGER


def test_while_few_events_come_it_does_not_pause() -> None:
    assert pause(*batch(1, 0), 1.0, NOW, BUSY - 1) == 0


def test_the_events_of_one_operation_are_few() -> None:
    """A create makes five within about 20 ms, and there may be one operation after the other."""
    recent = Recent()
    assert all(recent.note(1, clock=number * 0.020 / 5) < BUSY for number in range(100))


def test_events_are_counted_until_they_are_old() -> None:
    recent = Recent()
    assert recent.note(BUSY, 1.0) == BUSY
    assert recent.note(1, 1.0 + WINDOW / 2) == BUSY + 1
    assert recent.note(1, 1.0 + WINDOW) == 2
    assert recent.note(1, 9.0) == 1


def test_after_many_events_it_waits_for_more() -> None:
    assert pause(*batch(MANY, 0), 0.001, NOW, BUSY) == LINGER
    assert pause(*batch(MANY, LATE), 0.001, NOW, BUSY) == LINGER


def test_the_later_it_is_the_shorter_the_pause() -> None:
    pauses = [pause(*batch(MANY, LATE + LINGER * part / 10), 1.0, NOW, BUSY) for part in range(11)]
    assert pauses == sorted(set(pauses), reverse=True)
    assert pauses[0] == LINGER
    assert pause(*batch(MANY, LATE + 2 * LINGER), 1.0, NOW, BUSY) == 0


@given(st.integers(1, 5000), st.floats(0, 1e6), st.floats(-1e6, 1e6), st.integers(1, 5000))
def test_no_pause_is_longer_than_the_limit(size: int, spent: float, age: float, recent: int) -> None:
    """Whatever a batch took, and however wrong a clock is."""
    assert 0 <= pause(*batch(size, age), spent, NOW, recent) <= LINGER


@pytest.mark.parametrize("size", [1, 100, 1000, 5000])
@pytest.mark.parametrize("per_second", [100, 1000, 3000])
def test_an_event_of_a_burst_is_seen_in_time(size: int, per_second: int) -> None:
    """A burst on a clock of its own, at 20 ms for a transaction and 100 us for an event: it counts no real time."""
    stored = [number / per_second for number in range(size)]
    seen: list[float] = []
    clock, recent = 0.0, Recent()
    while len(seen) < size:
        clock = max(clock, stored[len(seen)])
        present = sum(1 for moment in stored[len(seen) :] if moment <= clock)
        spent = 0.02 + present * 100e-6
        clock += spent
        age = clock - stored[len(seen) + present - 1]
        seen += [clock] * present
        clock += pause(*batch(present, age), spent, NOW, recent.note(present, clock))
    assert max(done - moment for done, moment in zip(seen, stored, strict=True)) <= SEEN
