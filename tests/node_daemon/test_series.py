"""The file of the usage of a day: rings that wrap, are used again, and survive any end of the process."""

import os
import random
from pathlib import Path

import pytest

from domain.guest_usage import MOST_COUNT, Totals
from node_daemon.usage import series
from node_daemon.usage.series import Record, Series
from tests.node_daemon.documents import new_vm

MIB = 1024**2


def record(number: int, *, begins: bool = False, time: float | None = None) -> Record:
    at = 1_700_000_000.25 + 30 * number if time is None else time
    return Record(at, begins, Totals(number, 2 * number, 3 * number * MIB, 4 * number, 5 * number, 6, None))


def test_what_was_added_is_read(tmp_path: Path) -> None:
    one, two = new_vm(), new_vm()
    made = Series(tmp_path / "usage.series")
    assert made.read(one, 0) == [] and made.read(None, 0) == []
    for number in range(5):
        assert made.append([(None, record(number)), (one, record(10 + number, begins=number == 0))]) == []
    made.append([(two, Record(1.0, True, Totals()))])
    for each in (made, Series(tmp_path / "usage.series")):
        assert each.read(None, 0) == [record(number) for number in range(5)]
        assert each.read(one, 0) == [record(10, begins=True), *(record(number) for number in range(11, 15))]
        assert each.read(one, record(13).time) == [record(13), record(14)]
        assert each.read(two, 0) == [Record(1.0, True, Totals())]
        assert each.read(new_vm(), 0) == []
    assert (tmp_path / "usage.series").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("count", [6, 7, 8, 13, 14, 15, 70_000])
def test_a_ring_wraps(tmp_path: Path, count: int) -> None:
    vm, made = new_vm(), Series(tmp_path / "s", rings=2, records=7)
    for number in range(count):
        made.append([(vm, record(number))])
    for each in (made, Series(tmp_path / "s", rings=2, records=7)):
        assert each.read(vm, 0) == [record(number) for number in range(max(0, count - 7), count)]
    assert (tmp_path / "s").stat().st_size <= 4096 + 3 * 7 * 64


def test_numbers_are_kept_as_they_are(tmp_path: Path) -> None:
    vm, made = new_vm(), Series(tmp_path / "s")
    most = Totals(MOST_COUNT, MOST_COUNT, MOST_COUNT, MOST_COUNT, 0, None, 1)
    made.append([(vm, Record(-5.0, False, most))])
    made.append([(vm, Record(1e12, True, Totals()))])
    early, late = made.read(vm, 0)
    assert early == Record(0.0, False, most.__class__(*[*most_of(most)]))
    assert (late.time, late.begins, late.totals) == (2**32 - 1, True, Totals())


def most_of(totals: Totals) -> list[int | None]:
    """A disk has at most so many whole MiB."""
    cpu, memory = totals.cpu_ns, totals.memory
    return [cpu, memory, (2**32 - 1) * MIB, totals.disk_read, totals.disk_written, totals.net_in, totals.net_out]


def test_a_write_that_ends_at_any_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before stays, and the next record is added as if nothing had happened."""
    vm, new, path = new_vm(), new_vm(), tmp_path / "s"
    made = Series(path, rings=2, records=5)
    for number in range(8):
        made.append([(vm, record(number))])
    whole, real = path.read_bytes(), os.pwrite
    had = [record(number) for number in range(3, 8)]

    class Killed(BaseException):
        pass

    def until(limit: int) -> None:
        left = [limit]

        def torn(file: int, data: bytes, place: int) -> int:
            real(file, data[: left[0]], place)
            if left[0] < len(data):
                raise Killed
            left[0] -= len(data)
            return len(data)

        monkeypatch.setattr(os, "pwrite", torn)

    written = 64 + 36
    for sender, first in ((vm, 0), (new, 36)):
        for byte in range(first + written):
            path.write_bytes(whole)
            until(byte)
            with pytest.raises(Killed):
                Series(path, rings=2, records=5).append([(sender, record(8, begins=True))])
            monkeypatch.setattr(os, "pwrite", real)
            after = Series(path, rings=2, records=5)
            found = after.read(vm, 0)
            # the oldest record may be lost: it is where the new one is written, which may be counted already
            lost = [record(4, begins=True), *had[2:]]
            counted = [[*had[1:], record(8, begins=True)]] if sender == vm else []
            assert found in (had, lost, *counted), (sender == vm, byte)
            assert after.read(new, 0) in ([], [record(8, begins=True)] if sender == new else [])
            after.append([(sender, record(9, begins=True))])
            assert after.read(sender, 0)[-1] == record(9, begins=True)
            assert record(7) in after.read(vm, 0)
            assert Series(path, rings=2, records=5).read(sender, 0) == after.read(sender, 0)
    path.write_bytes(whole)
    until(written)
    Series(path, rings=2, records=5).append([(vm, record(8))])
    assert Series(path, rings=2, records=5).read(vm, 0)[-1] == record(8), "the whole write"


def test_a_record_that_is_damaged_is_missing_and_the_next_one_begins_a_line(tmp_path: Path) -> None:
    vm, path = new_vm(), tmp_path / "s"
    made = Series(path, rings=1, records=10)
    for number in range(6):
        made.append([(vm, record(number))])
    data = bytearray(path.read_bytes())
    data[4096 + 640 + 3 * 64 + 20] ^= 1
    path.write_bytes(data)
    wanted = [record(0), record(1), record(2), record(4, begins=True), record(5)]
    assert Series(path, rings=1, records=10).read(vm, 0) == wanted


def test_bytes_of_an_earlier_owner_are_nobodys(tmp_path: Path) -> None:
    """A ring's new owner never gets a record of the earlier one, also if the directory is ahead of the records."""
    old, new, path = new_vm(), new_vm(), tmp_path / "s"
    made = Series(path, rings=1, records=4)
    for number in range(4):
        made.append([(old, record(number))])
    before = path.read_bytes()
    made.append([(new, record(7))])
    made.append([(new, record(8))])
    after = path.read_bytes()
    path.write_bytes(after[:4096] + before[4096:])
    assert Series(path, rings=1, records=4).read(new, 0) == []


@pytest.mark.parametrize("other", [b"", b"NBL", b"x" * 100_000, b"NBLUSAGE" + bytes(5000)])
def test_a_file_of_something_else_is_begun_again(tmp_path: Path, other: bytes) -> None:
    vm, path = new_vm(), tmp_path / "s"
    path.write_bytes(other)
    made = Series(path)
    assert made.read(vm, 0) == []
    made.append([(vm, record(1))])
    assert Series(path).read(vm, 0) == [record(1)]


def test_every_torn_header_and_every_other_shape_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, path = new_vm(), tmp_path / "s"
    Series(path).append([(vm, record(1))])
    whole = path.read_bytes()
    for byte in range(24):
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1]) + whole[byte + 1 :])
        assert Series(path).read(vm, 0) == [], byte
    for shape in ({"rings": 3}, {"records": 100}):
        path.write_bytes(whole)
        assert Series(path, **shape).read(vm, 0) == []
    path.write_bytes(whole)
    monkeypatch.setattr(series, "VERSION", 2)
    assert Series(path).read(vm, 0) == []


def test_a_file_that_disappears_is_begun_again(tmp_path: Path) -> None:
    vm, path = new_vm(), tmp_path / "s"
    made = Series(path)
    made.append([(vm, record(1))])
    path.unlink()
    assert made.read(vm, 0) == []
    made.append([(vm, record(2))])
    assert made.read(vm, 0) == Series(path).read(vm, 0) == [record(2)]


def test_a_full_disk_is_an_error_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vm, made = new_vm(), Series(tmp_path / "s")
    made.append([(vm, record(1))])
    real = os.pwrite

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    for each in (vm, new_vm()):
        with pytest.raises(OSError, match="No space"):
            made.append([(each, record(2))])
    monkeypatch.setattr(os, "pwrite", real)
    assert made.read(vm, 0) == [record(1)]
    made.append([(vm, record(3))])
    assert made.read(vm, 0) == [record(1), record(3)]


def test_512_vms_share_a_file_and_the_next_one_gets_the_ring_of_one_that_is_not_there(tmp_path: Path) -> None:
    vms, path = [new_vm() for _ in range(512)], tmp_path / "s"
    made = Series(path)
    assert made.append([(None, record(0)), *((vm, record(1)) for vm in vms)]) == []
    later = [(vm, record(2)) for vm in vms[2:]]
    assert made.append([(None, record(1)), *later]) == []
    extra = new_vm()
    assert made.append([*later, *[(vm, record(2)) for vm in vms[:2]], (extra, record(2))]) == [extra], "all run"
    assert made.append([*later, (extra, record(3))], had=[vms[0]]) == []
    assert made.read(vms[1], 0) == [], "the node does not have it"
    assert made.read(vms[0], 0) == [record(1), record(2)], "it is only off"
    another = new_vm()
    assert made.append([*later, (extra, record(4)), (another, record(4))], had=[vms[0]]) == []
    assert made.read(vms[0], 0) == [], "there is no other room"
    assert Series(path).read(extra, 0) == [record(3), record(4)]
    assert Series(path).read(None, 0) == [record(0), record(1)]
    stat = path.stat()
    assert stat.st_size <= 110 * 10**6 and stat.st_blocks * 512 < 12 * 10**6, "it is sparse"


def test_the_longest_unused_ring_is_used_again(tmp_path: Path) -> None:
    vms, made = [new_vm() for _ in range(3)], Series(tmp_path / "s", rings=3, records=5)
    for number, vm in enumerate(vms):
        made.append([(vm, record(5 - number))])
    made.append([(new_vm(), record(9))])
    assert [len(made.read(vm, 0)) for vm in vms] == [1, 1, 0]


def test_a_clock_that_is_set_back_and_forth(tmp_path: Path) -> None:
    """Records stay in the order in which they were added."""
    vm, made = new_vm(), Series(tmp_path / "s")
    times = [1000.0, 1030.0, 10.0, 40.0, 1090.0, 1120.0]
    for number, time in enumerate(times):
        made.append([(vm, record(number, time=time))])
    assert [each.time for each in made.read(vm, 0)] == times
    assert [each.time for each in made.read(vm, 500)] == [1000.0, 1030.0, 1090.0, 1120.0]


def test_any_series_of_records_of_any_vms(tmp_path: Path) -> None:
    """The file agrees with a list, through restarts, in rings that wrap and are used again."""
    choices = random.Random(7)
    vms, kept = [new_vm() for _ in range(6)], dict[str, list[Record]]()
    made = Series(tmp_path / "s", rings=4, records=9)
    for number in range(400):
        if choices.random() < 0.1:
            made = Series(tmp_path / "s", rings=4, records=9)
        chosen = choices.sample(vms, choices.randint(1, 4))
        without = made.append([(vm, record(number)) for vm in chosen], had=kept)
        assert without == []
        for vm in chosen:
            kept[vm] = [*kept.get(vm, []), record(number)][-9:]
        for vm in [*kept]:
            found = made.read(vm, 0)
            assert found in (kept[vm], []) if vm not in chosen else found == kept[vm][-len(found) :] and found
            kept[vm] = found
            if not found:
                del kept[vm]
        assert len(kept) <= 4
