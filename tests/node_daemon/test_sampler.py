"""When samples are taken, what begins a new line, and what is kept of a node whose hypervisor or disk fails."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from domain.guest_usage import DiskUsage, GuestUsage, HostUsage, UsageSeries
from node_daemon.hypervisor.hypervisor import Refused, Unreachable
from node_daemon.usage import sampler as module
from node_daemon.usage.sampler import Sampler, Sampling, phase
from node_daemon.usage.series import Record, Series
from runtime.tasks.tasks import end
from tests.node_daemon.documents import new_vm
from tests.waiting import eventually

SECOND = 10**9


@dataclass
class Bed:
    """A node with a clock of its own, which takes a sample each 30 seconds."""

    folder: Path
    now: float = 1_700_000_000.0
    set_by: float = 0.0
    guests: dict[str, GuestUsage] = field(default_factory=dict)
    error: Exception | None = None
    asked: int = 0

    def __post_init__(self) -> None:
        self.series = Series(self.folder / "usage.series")
        self.sampler = self.new()

    def new(self) -> Sampler:
        clock = (lambda: self.now + self.set_by, lambda: self.now)
        return Sampler(
            "n1", 30, self.usage, lambda: HostUsage(boot="b", cpus=4, cpu_ns=int(self.now)), self.series, *clock
        )

    async def usage(self) -> Mapping[str, GuestUsage]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return dict(self.guests)

    async def after(self, seconds: float = 30.0, **changes: GuestUsage) -> None:
        self.now += seconds
        await self.sampler.sample()

    def lines(self, vm: str | None) -> list[bool]:
        """Of each record, whether it begins a line."""
        return [each.begins for each in self.series.read(vm, 0)]


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def used(seconds: int, boot: int = 1, read: int | None = 0) -> GuestUsage:
    disk = DiskUsage("vda", read_bytes=read)
    return GuestUsage(boot=boot, cpu_ns=seconds * SECOND, vcpus=2, memory_rss=2**20 * seconds, disks=(disk,))


async def test_a_guest_that_runs_is_one_line(bed: Bed) -> None:
    vm = new_vm()
    for number in range(4):
        bed.guests[vm] = used(15 * number)
        await bed.after()
    assert bed.lines(vm) == bed.lines(None) == [True, False, False, False]
    found = await bed.sampler.series_of(vm, 120, 4)
    assert found.cpu == (None, 0.5, 0.5, 0.5)
    assert found.size.cpus == 2
    assert (await bed.sampler.series_of(None, 120, 4)).size.cpus == 4
    assert (await bed.sampler.series_of(new_vm(), 120, 4)).cpu == (None,) * 4


@pytest.mark.parametrize(
    "then",
    [
        used(90, boot=2),
        used(10),
        used(90, read=None),
        replace(used(90), disks=(*used(90).disks, DiskUsage("vdb", read_bytes=1))),
        replace(used(90), cpu_ns=None),
    ],
    ids=["boot", "fell", "unknown", "another disk", "no counter"],
)
async def test_what_begins_a_line(bed: Bed, then: GuestUsage) -> None:
    vm, other = new_vm(), new_vm()
    for number in (1, 2):
        bed.guests = {vm: used(15 * number), other: used(15 * number)}
        await bed.after()
    bed.guests = {vm: then, other: used(45)}
    await bed.after()
    assert (bed.lines(vm), bed.lines(other)) == ([True, False, True], [True, False, False])


async def test_a_guest_that_is_off_for_a_while(bed: Bed) -> None:
    vm = new_vm()
    for guests in ({vm: used(1)}, {}, {vm: used(2)}, {vm: used(3)}):
        bed.guests = guests
        await bed.after()
    assert bed.lines(vm) == [True, True, False]


@pytest.mark.parametrize("error", [Unreachable("no answer"), Refused("no")])
async def test_a_call_that_fails_is_a_gap(bed: Bed, error: Exception) -> None:
    vm = new_vm()
    bed.guests = {vm: used(1)}
    await bed.after()
    bed.error = error
    await bed.after()
    assert bed.sampler.newest is not None and bed.sampler.newest.guests is None
    bed.error = None
    for number in (2, 3):
        bed.guests = {vm: used(number)}
        await bed.after()
    assert (bed.lines(vm), bed.lines(None)) == ([True, True, False], [True, False, False, False])


async def test_a_sample_that_is_missing_or_late_and_a_clock_that_is_set_are_gaps(bed: Bed) -> None:
    vm, expected = new_vm(), [True]
    bed.guests = {vm: used(1)}
    await bed.after()
    for seconds, set_by, begins in ((44, 0, False), (46, 0, True), (30, 7200, True), (30, 7200, False), (30, 0, True)):
        bed.set_by = set_by
        await bed.after(seconds)
        expected.append(begins)
    assert bed.lines(vm) == expected
    await bed.after(14)
    assert len(bed.lines(vm)) == 6, "that was too early"


async def test_a_daemon_that_starts_again_begins_lines(bed: Bed) -> None:
    vm = new_vm()
    bed.guests = {vm: used(1)}
    await bed.after()
    bed.sampler = bed.new()
    bed.guests = {vm: used(2)}
    await bed.after()
    assert bed.lines(vm) == bed.lines(None) == [True, True]


async def test_a_full_disk_is_a_gap_that_is_logged_once(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    vm, logged = new_vm(), list[str]()
    monkeypatch.setattr(module.log, "warning", lambda text, **_: logged.append(text))
    bed.guests = {vm: used(1)}
    await bed.after()
    real = bed.series.append

    def full(*_: object) -> list[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bed.series, "append", full)
    for number in (2, 3):
        bed.guests = {vm: used(number)}
        await bed.after()
    assert bed.sampler.newest is not None and bed.sampler.newest.guests == {vm: used(3)}, "for Prometheus"
    monkeypatch.setattr(bed.series, "append", real)
    bed.guests = {vm: used(4)}
    await bed.after()
    assert bed.lines(vm) == [True, True]
    assert logged == ["the usage of guests has a gap"]


async def test_vms_without_room_are_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bed, logged = Bed(tmp_path), list[list[str]]()
    bed.series = Series(tmp_path / "small", rings=1)
    bed.sampler = bed.new()
    monkeypatch.setattr(module.log, "warning", lambda _, vms, **__: logged.append(vms))
    one, two, three = sorted(new_vm() for _ in range(3))
    for guests in ([one], [one, two], [one, two], [one, two, three]):
        bed.guests = {vm: used(1) for vm in guests}
        await bed.after()
    assert logged == [[two], [two, three]]


def test_nodes_of_one_process_do_not_sample_at_once() -> None:
    phases = {phase(f"sim-{number:03d}", 30) for number in range(100)}
    assert len(phases) > 20 and all(0 <= each < 30 for each in phases)
    assert phase("n1", 30) == phase("n1", 30)
    assert phase("n1", 0.2) == 0


async def test_a_node_that_hangs_delays_no_other_and_an_error_ends_nothing(tmp_path: Path) -> None:
    hung, broken, good = [Bed(tmp_path / name) for name in ("hung", "broken", "good")]
    for each in (hung, broken, good):
        each.folder.mkdir()

    async def hang() -> Mapping[str, GuestUsage]:
        hung.asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    broken.error = ValueError("a bug")
    sampling = Sampling(0.05)
    asks = (hang, broken.usage, good.usage)
    sampling.samplers += [
        Sampler(f"n{number}", 0.05, ask, HostUsage, Series(tmp_path / f"{number}")) for number, ask in enumerate(asks)
    ]
    running = asyncio.create_task(sampling.run())
    await eventually(lambda: good.asked > 3 and broken.asked > 3, "the others are sampled")
    assert hung.asked == 1
    assert [sample.node for sample in sampling.newest()] == ["n2"]
    sampling.samplers.pop()
    await end([running])


async def test_a_series_may_be_read_while_it_grows(bed: Bed) -> None:
    vm = new_vm()

    async def grow() -> None:
        for number in range(200):
            bed.guests = {vm: used(15 * number)}
            await bed.after()

    async def read() -> UsageSeries:
        return await bed.sampler.series_of(vm, 3600, 120)

    growing = asyncio.create_task(grow())
    while not growing.done():
        assert {each for each in (await read()).cpu if each is not None} <= {0.5}
    await growing
    assert [isinstance(each, Record) for each in bed.series.read(vm, 0)] == [True] * 200
