"""Takes a sample of all guests and of the host every few seconds, and adds it to the series of the node.

A call that fails, or comes late, is a gap: the next record begins a new line. A new boot begins one too, and so do
other disks or interfaces, a counter that falls, and a clock that was set. So a rate is always that of one boot, over a
time that is known.

Nodes of one process take their samples at different moments of the interval, which follow from their names.
"""

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from domain.guest_usage import GuestUsage, HostUsage, Totals, UsageSeries, UsageSize
from node_daemon.hypervisor.hypervisor import Refused, Unreachable
from node_daemon.usage.averages import COUNTERS, series_of
from node_daemon.usage.series import Record, Series
from runtime import logs
from runtime.tasks.tasks import end, in_thread

log = logs.get(__name__)

#: Shares of the interval: two samples are not closer to each other, and a time without samples that is longer is a gap.
LEAST, MOST = 0.5, 1.5
#: Seconds by which the time since the last sample may differ between the clock and one that nobody sets.
SET = 1.0


@dataclass(frozen=True)
class Sample:
    """The newest sample of a node. `guests`: by VM; None: the hypervisor did not answer. `at`: by a monotonic clock."""

    node: str
    at: float
    time: float
    guests: Mapping[str, GuestUsage] | None
    host: HostUsage
    #: the project of each VM that the node should have
    projects: Mapping[str, str] = field(default_factory=dict)


class Sampler:
    """Samples of one node.

    `guests` and `host` measure; `host` is called on a thread.
    """

    def __init__(
        self,
        node: str,
        interval: float,
        guests: Callable[[], Awaitable[Mapping[str, GuestUsage]]],
        host: Callable[[], HostUsage],
        series: Series,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node, self.interval = node, interval
        #: when it takes samples: seconds after the beginning of each interval
        self.phase = phase(node, interval)
        self.newest: Sample | None = None
        #: gives the project of each VM that the node should have
        self.projects: Callable[[], Mapping[str, str]] = dict
        self._guests, self._host, self._series = guests, host, series
        self._clock, self._monotonic = clock, monotonic
        #: what the last records were made of, while lines can go on
        self._lines: dict[str | None, tuple[tuple[object, ...], Totals]] = {}
        self._trouble: str | None = None
        self._without: frozenset[str] = frozenset()

    async def sample(self) -> None:
        """Take a sample now, unless the last one was just taken."""
        now, last = self._monotonic(), self.newest
        if last is not None and now - last.at < LEAST * self.interval:
            return
        at_clock, trouble, guests = self._clock(), None, None
        try:
            guests = await self._guests()
        except (Unreachable, Refused) as error:
            trouble = f"the hypervisor says nothing of its guests: {error}"
        host = await in_thread(self._host)
        sample = Sample(self.node, now, at_clock, guests, host, self.projects())
        records, lines = self._records(sample, last)
        self.newest, self._lines = sample, {}
        try:
            without = frozenset(await in_thread(self._series.append, records, sample.projects))
            self._lines = lines
        except OSError as error:
            trouble, without = f"the usage cannot be stored: {error}", self._without
        if trouble is not None and self._trouble is None:
            log.warning("the usage of guests has a gap", node=self.node, error=trouble)
        if without - self._without:
            log.warning("there is no room for the usage of these VMs", node=self.node, vms=sorted(without))
        self._trouble, self._without = trouble, without

    async def series_of(self, vm: str | None, seconds: float, points: int) -> UsageSeries:
        """What a VM (None: the host) used in the last `seconds`, as at most `points` averages. Raises OSError."""
        return await asyncio.to_thread(self._series_of, vm, seconds, points, self._size(vm))

    def _series_of(self, vm: str | None, seconds: float, points: int, size: UsageSize) -> UsageSeries:
        now = self._clock()
        records = self._series.read(vm, now - seconds - 4 * self.interval)
        return series_of(records, seconds, points, self.interval, now, size)

    def _size(self, vm: str | None) -> UsageSize:
        if self.newest is None:
            return UsageSize()
        found = self.newest.host if vm is None else (self.newest.guests or {}).get(vm)
        return found.size if found is not None else UsageSize()

    def _records(
        self, sample: Sample, last: Sample | None
    ) -> tuple[list[tuple[str | None, Record]], dict[str | None, tuple[tuple[object, ...], Totals]]]:
        """The records of a sample, and what they are made of."""
        whole = last is not None and follows(last, sample, self.interval)
        measured: dict[str | None, GuestUsage | HostUsage] = {None: sample.host}
        measured.update(sample.guests or {})
        records: list[tuple[str | None, Record]] = []
        lines: dict[str | None, tuple[tuple[object, ...], Totals]] = {}
        for vm, usage in measured.items():
            lines[vm] = sources, totals = usage.sources, usage.totals
            before = self._lines.get(vm) if whole else None
            begins = before is None or before[0] != sources or fell(before[1], totals)
            records.append((vm, Record(sample.time, begins, totals)))
        return records, lines


def follows(last: Sample, sample: Sample, interval: float) -> bool:
    """Whether no sample is missing between the two, and no clock was set."""
    passed = sample.at - last.at
    return passed <= MOST * interval and abs(sample.time - last.time - passed) <= SET


def fell(before: Totals, after: Totals) -> bool:
    """Whether a counter has fallen, or is not known any more, or was not known before."""
    for name in COUNTERS:
        earlier, later = getattr(before, name), getattr(after, name)
        if (earlier is None) != (later is None) or (earlier is not None and later is not None and later < earlier):
            return True
    return False


def phase(node: str, interval: float) -> float:
    """When a node takes its samples. It is whole seconds, so that many nodes do not wake their process more than once a
    second.
    """
    return zlib.crc32(node.encode()) % max(1, int(interval)) if interval >= 1 else 0.0


class Sampling:
    """Runs the samplers of all nodes of a process. `samplers` may change at any time."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.time) -> None:
        self.samplers: list[Sampler] = []
        self.interval, self._clock = interval, clock
        self._running: dict[Sampler, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Take samples until cancelled. A node whose sample takes longer than the interval delays no other one."""
        try:
            for sampler in self.samplers:
                self._start(sampler)
            while True:
                now = self._clock() % self.interval
                pauses = {sampler: sampler.phase - now for sampler in self.samplers}
                waits = {sampler: pause if pause > 0 else pause + self.interval for sampler, pause in pauses.items()}
                pause = min([1.0, *waits.values()])
                await asyncio.sleep(pause)
                for sampler, wait in waits.items():
                    if wait <= pause:
                        self._start(sampler)
        finally:
            await end(self._running.values())

    def _start(self, sampler: Sampler) -> None:
        if sampler in self._running:
            return
        task = self._running[sampler] = asyncio.create_task(self._sample(sampler), name=f"usage of {sampler.node}")
        task.add_done_callback(lambda _: self._running.pop(sampler, None))

    async def _sample(self, sampler: Sampler) -> None:
        try:
            await sampler.sample()
        except Exception as error:  # one sample is lost; the next one may be right
            log.error("a sample of the usage failed", node=sampler.node, exc_info=error)

    def newest(self) -> list[Sample]:
        """The newest sample of each node that has one."""
        return [sampler.newest for sampler in self.samplers if sampler.newest is not None]
