"""Averages of a series: what overlaps a step counts for it, and what is unknown stays unknown."""

import random

import pytest
from hypothesis import given, strategies as st

from domain.guest_usage import MOST_COUNT, MOST_POINTS, Totals, UsageSeries, UsageSize
from node_daemon.usage.averages import series_of
from node_daemon.usage.series import Record

NOW = 1_700_000_000.0
GIB = 2**30


def steady(seconds: float, interval: float = 30.0, *, end: float = NOW, begins: bool = True) -> list[Record]:
    """A guest that has used half a CPU and 1000 bytes/s of everything."""
    count = int(seconds / interval)
    times = [end - interval * (count - each) for each in range(count + 1)]
    return [
        Record(
            time,
            begins and each == 0,
            Totals(int(5e8 * (time - times[0])), GIB, GIB, *[int(1000 * (time - times[0]))] * 4),
        )
        for each, time in enumerate(times)
    ]


def averages(records: list[Record], seconds: float = 3600, points: int = 120, now: float = NOW) -> UsageSeries:
    return series_of(records, seconds, points, 30.0, now, UsageSize())


@pytest.mark.parametrize("points", [1, 7, 60, 119, 120, 121, 500])
@pytest.mark.parametrize("late", [0.0, 0.3, 12.0, 29.9])
def test_a_steady_guest_has_steady_numbers(points: int, late: float) -> None:
    found = averages(steady(7200), points=points, now=NOW + late)
    assert len(found.cpu) == min(points, 120)
    assert found.step_seconds == pytest.approx(max(30, 3600 / points), abs=0.001)
    assert set(found.cpu) == {0.5}
    for column in (found.disk_read, found.disk_written, found.net_in, found.net_out):
        assert set(column) == {1000}
    assert set(found.memory_bytes) == set(found.disk_bytes) == {GIB}
    assert found.end.timestamp() == pytest.approx(NOW, abs=1)


def test_samples_that_come_late_leave_no_holes() -> None:
    choices = random.Random(3)
    records = [each._replace(time=each.time + choices.random() * 4) for each in steady(3600)]
    found = averages(records, 3000, 100)
    assert None not in found.cpu and all(0.4 < (each or 0) < 0.6 for each in found.cpu)


def test_what_is_before_the_first_record_is_unknown() -> None:
    found = averages(steady(600))
    assert found.cpu == (None,) * 100 + (0.5,) * 20
    assert found.memory_bytes[:99] == (None,) * 99 and set(found.memory_bytes[100:]) == {GIB}


def test_a_gap_is_unknown_and_never_zero() -> None:
    records = steady(3600)
    del records[60:70]
    records[60] = records[60]._replace(begins=True)
    found = averages(records)
    assert found.cpu[59:70] == (None,) * 11
    assert None not in found.cpu[:59] + found.cpu[70:]


def test_a_node_that_does_not_sample_any_more_shows_a_gap_to_now() -> None:
    found = averages(steady(3600, end=NOW - 600))
    assert found.cpu[-20:] == (None,) * 20 and found.cpu[-21] == 0.5
    assert found.end.timestamp() == pytest.approx(NOW)


def test_a_new_boot_begins_at_zero() -> None:
    before, after = steady(1800, end=NOW - 1800), steady(1770)
    found = averages([*before, *after])
    assert found.cpu[:60] == (0.5,) * 60
    assert found.cpu[60] is None
    assert found.cpu[61:] == (0.5,) * 59


def test_a_counter_that_falls_without_notice_is_unknown() -> None:
    records = [Record(NOW - 60, False, Totals(cpu_ns=10**12)), Record(NOW - 30, False, Totals(cpu_ns=5))]
    assert averages(records).cpu == (None,) * 120


def test_a_clock_that_was_set_back_and_forth() -> None:
    past = steady(600, end=NOW - 86400 * 3)
    later = steady(600, end=NOW + 86400)
    records = [*steady(900, end=NOW - 900), *past, *later, *steady(600)]
    found = averages(records)
    assert {each for each in found.cpu if each is not None} == {0.5}
    assert (found.cpu[-1], found.cpu[-25]) == (0.5, None)
    assert found.end.timestamp() == pytest.approx(NOW)


def test_numbers_that_cannot_be_are_unknown() -> None:
    most = Totals(*[MOST_COUNT] * 7)
    found = averages([Record(NOW - 0.01, True, Totals(*[0] * 7)), Record(NOW, False, most)])
    assert (found.cpu[-1], found.disk_read[-1], found.memory_bytes[-1]) == (None, None, None)


TIMES = st.floats(min_value=0, max_value=2**32, allow_nan=False)
NUMBERS = st.none() | st.integers(min_value=0, max_value=MOST_COUNT)
RECORDS = st.lists(st.builds(Record, TIMES, st.booleans(), st.builds(Totals, *[NUMBERS] * 7)), max_size=12)


@given(
    RECORDS,
    st.floats(min_value=0.001, max_value=86400),
    st.integers(min_value=1, max_value=MOST_POINTS),
    st.floats(min_value=0.1, max_value=3600),
    st.floats(min_value=2e6, max_value=2**32),
)
def test_any_records_give_a_series(
    records: list[Record], seconds: float, points: int, interval: float, now: float
) -> None:
    found = series_of(records, seconds, points, interval, now, UsageSize())
    assert 1 <= len(found.cpu) <= points
    assert len(found.points()) == len(found.cpu)
    assert len(found.model_dump_json()) < 64 * 1024
    assert UsageSeries.model_validate_json(found.model_dump_json()) == found


def test_a_record_that_is_a_moment_ahead_of_the_clock_is_the_newest() -> None:
    assert averages(steady(3600), now=NOW - 0.004).cpu == (0.5,) * 120
