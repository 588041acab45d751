"""Averages of the records of a series, for equal steps.

A counter's rate between two records counts for the time between them, and so does the level of the second one. A step
gets the average of what overlaps it, so it does not matter how records and steps lie to each other. A step that nothing
overlaps is unknown.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from domain.guest_usage import MOST_BYTES, MOST_CPUS, UsageSeries, UsageSize
from node_daemon.usage.series import Record

LEVELS = ("memory", "disk")
COUNTERS = ("cpu_ns", "disk_read", "disk_written", "net_in", "net_out")
#: Seconds that the level of a record counts for that begins a line: it matters only where nothing else is known.
_MOMENT = 0.001
#: Seconds that the newest record may be ahead of the clock: its time is rounded, and clocks are corrected.
_AHEAD = 1.0
_NS = 1e9


class _Steps:
    """Sums of numbers times seconds, and of seconds, for each step."""

    def __init__(self, start: float, step: float, count: int) -> None:
        self._start, self._step = start, step
        self._sums = [0.0] * count
        self._seconds = [0.0] * count

    def add(self, number: float, begin: float, end: float) -> None:
        """Count a number for the time from `begin` to `end`."""
        first = max(0, int((begin - self._start) // self._step))
        last = min(len(self._sums) - 1, int((end - self._start) // self._step))
        for each in range(first, last + 1):
            at = self._start + each * self._step
            overlap = min(end, at + self._step) - max(begin, at)
            if overlap > 0:
                self._sums[each] += number * overlap
                self._seconds[each] += overlap

    def averages(self) -> list[float | None]:
        pairs = zip(self._sums, self._seconds, strict=True)
        return [total / seconds if seconds > 0 else None for total, seconds in pairs]


def series_of(
    records: Sequence[Record], seconds: float, points: int, interval: float, now: float, size: UsageSize
) -> UsageSeries:
    """The last `seconds` as at most `points` averages. `interval`: seconds between two records, the least step.

    The last step ends with the newest record, or now if that is missing.
    """
    step = max(interval, seconds / points)
    count = max(1, min(points, math.ceil(seconds / step - 1e-9)))
    times = [record.time for record in records if now - 2 * interval <= record.time <= now + _AHEAD]
    start = max(times, default=now) - count * step
    sums = {name: _Steps(start, step, count) for name in (*LEVELS, *COUNTERS)}
    before: Record | None = None
    for record in records:
        _add(sums, None if record.begins else before, record)
        before = record
    found = {name: each.averages() for name, each in sums.items()}
    amounts = {name: tuple(_amount(value) for value in values) for name, values in found.items()}
    return UsageSeries(
        start=datetime.fromtimestamp(start, UTC),
        step_seconds=round(step, 3),
        size=size,
        cpu=tuple(_cores(value) for value in found["cpu_ns"]),
        memory_bytes=amounts["memory"],
        disk_bytes=amounts["disk"],
        **{name: amounts[name] for name in COUNTERS[1:]},
    )


def _add(sums: dict[str, _Steps], before: Record | None, record: Record) -> None:
    begin = before.time if before is not None and before.time < record.time else record.time - _MOMENT
    for name in LEVELS:
        level = getattr(record.totals, name)
        if level is not None:
            sums[name].add(level, begin, record.time)
    if before is None or before.time >= record.time:
        return
    for name in COUNTERS:
        earlier, later = getattr(before.totals, name), getattr(record.totals, name)
        if earlier is not None and later is not None and later >= earlier:
            sums[name].add((later - earlier) / (record.time - before.time), before.time, record.time)


def _amount(value: float | None) -> int | None:
    return None if value is None or value > MOST_BYTES else round(value)


def _cores(value: float | None) -> float | None:
    return None if value is None or value > MOST_CPUS * _NS else round(value / _NS, 4)
