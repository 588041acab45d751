"""The file with the usage of the last day: a ring of records of equal size for the host, and one for each VM.

The file is `header, directory, rings`. It does not grow: there are so many rings, and each has so many records. The
ring of a VM that the node does not have any more is used again. Files are sparse, so rings that nobody uses cost
nothing.

It may be killed at any moment, and the disk may be full. A record is written before the directory's entry, which counts
it. An entry has two copies, written in turn, so one of them is right. A record with a wrong check or number counts as
missing. A file with another header is begun again. It is read and written by `pread` and `pwrite`: with a mapped file a
full disk would end the process.

All functions block: call them on a thread. One process uses a file; its folder is locked.
"""

import os
import struct
import threading
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from domain.guest_usage import Totals
from runtime.files.files import put

#: VMs in one file, and records of each: a day at one record each 30 seconds.
RINGS, RECORDS = 512, 2880
VERSION = 1

_MIB = 1024**2
_MAGIC = b"NBLUSAGE"
#: magic, version, rings, records; then the check
_HEADER = struct.Struct("<8sIII")
_CHECK = struct.Struct("<I")
#: id, serial number of this entry, number of records that the ring ever got; the check comes first
_ENTRY = struct.Struct("<16sQQ")
#: number of the record (its last 16 bits), which values are known, hundredths of a second, seconds since 1970, disk in
#: MiB, the other values; the check comes first
_RECORD = struct.Struct("<HBBII6Q")
_COPY = 40
_RECORD_SIZE = _CHECK.size + _RECORD.size
_DIRECTORY = 64
#: The id of the host's ring.
_HOST = bytes(16)
_BEGINS = 1
_MOST_SECONDS, _MOST_MIB = 2**32 - 1, 2**32 - 1
#: Records that are read at a time.
_PART = 240


class Record(NamedTuple):
    """A sample. `time`: seconds since 1970. `begins`: nothing is known of the time between the record before and this.

    The size of the disk is in whole MiB, the time in hundredths of a second.
    """

    time: float
    begins: bool
    totals: Totals


@dataclass(slots=True)
class _Ring:
    number: int
    id: bytes = b""
    serial: int = 0
    count: int = 0


class Series:
    """The file at `path`, which is made when it is first needed."""

    def __init__(self, path: Path, *, rings: int = RINGS, records: int = RECORDS) -> None:
        self._path = path
        self._rings, self._records = rings, records
        self._first = -(-(_DIRECTORY + (rings + 1) * 2 * _COPY) // 4096) * 4096
        #: the rings that somebody has, by their numbers and by their ids
        self._used: dict[int, _Ring] = {}
        self._by_id: dict[bytes, _Ring] = {}
        self._file: tuple[int, int] | None = None
        self._turn = threading.Lock()

    def append(self, records: Sequence[tuple[str | None, Record]], had: Collection[str] = ()) -> list[str]:
        """Add a record to the ring of each VM (None: the host). Returns the VMs for which there is no room.

        `had`: VMs that the node has, running or not: their rings are used again last. Raises OSError.
        """
        without: list[str] = []
        with self._turn, self._opened() as file:
            running, kept = {_id(vm) for vm, _ in records}, {_id(vm) for vm in had}
            for vm, record in records:
                ring = self._by_id.get(_id(vm)) or self._new_ring(file, _id(vm), running, kept)
                if ring is None:
                    without.append(vm or "")
                    continue
                os.pwrite(file, _packed(ring.id, ring.count, record), self._place(ring, ring.count))
                self._note(file, ring, count=ring.count + 1)
        return without

    def read(self, vm: str | None, since: float) -> list[Record]:
        """The records of a VM (None: of the host) from that time on, in the order in which they were added.

        One that follows a missing record begins a line. Raises OSError.
        """
        found: list[Record] = []
        with self._turn, self._opened() as file:
            ring = self._by_id.get(_id(vm))
            for part in self._parts(file, ring) if ring is not None else ():
                for record in part:
                    if record is None:
                        found[-1:] = [each._replace(begins=True) for each in found[-1:]]
                    elif record.time >= since:
                        found.append(record)
                if all(each is not None and each.time < since for each in part):
                    break
        found.reverse()
        return found

    def _parts(self, file: int, ring: _Ring) -> Iterator[list[Record | None]]:
        """The records of a ring, the newest first, some at a time. None: it is torn, or it was never written."""
        end, least = ring.count, max(0, ring.count - self._records)
        while end > least:
            place = end % self._records or self._records
            size = min(_PART, end - least, place)
            data = os.pread(file, size * _RECORD_SIZE, self._place(ring, end - size))
            part = [_unpacked(ring.id, end - size + each, data, each * _RECORD_SIZE) for each in range(size)]
            part.reverse()
            yield part
            end -= size

    def _place(self, ring: _Ring, number: int) -> int:
        return self._first + (ring.number * self._records + number % self._records) * _RECORD_SIZE

    def _note(self, file: int, ring: _Ring, *, count: int, id_: bytes | None = None) -> None:
        """Write the next entry of a ring into the older of its two copies."""
        serial = ring.serial + 1
        body = _ENTRY.pack(id_ or ring.id, serial, count)
        place = _DIRECTORY + (ring.number * 2 + serial % 2) * _COPY
        os.pwrite(file, _CHECK.pack(zlib.crc32(body, ring.number)) + body, place)
        ring.serial, ring.count = serial, count

    def _new_ring(self, file: int, id_: bytes, running: Collection[bytes], had: Collection[bytes]) -> _Ring | None:
        """A free ring, or that of a VM which the node does not have, or of one that does not run; None if all run."""
        numbers = range(1) if id_ == _HOST else range(1, self._rings + 1)
        free = next((number for number in numbers if number not in self._used), None)
        if free is not None:
            ring: _Ring | None = _Ring(free)
        else:
            idle = [each for each in self._used.values() if each.id not in running and each.id != _HOST]
            ring = min(idle, key=lambda each: (each.id in had, self._newest(file, each)), default=None)
        if ring is None:
            return None
        self._note(file, ring, count=0, id_=id_)
        self._by_id.pop(ring.id, None)
        ring.id = id_
        self._by_id[id_] = self._used[ring.number] = ring
        return ring

    def _newest(self, file: int, ring: _Ring) -> float:
        if ring.count == 0:
            return 0.0
        data = os.pread(file, _RECORD_SIZE, self._place(ring, ring.count - 1))
        record = _unpacked(ring.id, ring.count - 1, data, 0)
        return record.time if record is not None else 0.0

    # ── the file ────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The open file. It is open only for a moment, since one process may have many of them."""
        file = self._open()
        try:
            stat = os.fstat(file)
            if self._file != (stat.st_dev, stat.st_ino):
                self._load(file)
                self._file = (stat.st_dev, stat.st_ino)
            yield file
        finally:
            os.close(file)

    def _open(self) -> int:
        header = _HEADER.pack(_MAGIC, VERSION, self._rings, self._records)
        header += _CHECK.pack(zlib.crc32(header))
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        with suppress(FileNotFoundError):
            file = os.open(self._path, flags)
            if os.pread(file, len(header), 0) == header:
                return file
            os.close(file)
        put(self._path, header, durable=False)
        self._file = None
        return os.open(self._path, flags)

    def _load(self, file: int) -> None:
        self._used = {}
        data = os.pread(file, (self._rings + 1) * 2 * _COPY, _DIRECTORY)
        for ring in map(_Ring, range(self._rings + 1)):
            for copy in (0, 1):
                place = (ring.number * 2 + copy) * _COPY
                body = data[place + _CHECK.size : place + _CHECK.size + _ENTRY.size]
                if len(body) < _ENTRY.size or _CHECK.unpack_from(data, place)[0] != zlib.crc32(body, ring.number):
                    continue
                id_, serial, count = _ENTRY.unpack(body)
                if serial > ring.serial:
                    ring.id, ring.serial, ring.count = id_, serial, count
            if ring.serial:
                self._used[ring.number] = ring
        self._by_id = {ring.id: ring for ring in self._used.values()}


def _id(vm: str | None) -> bytes:
    return _HOST if vm is None else bytes.fromhex(vm.replace("-", ""))


def _packed(id_: bytes, number: int, record: Record) -> bytes:
    totals = record.totals
    values = (
        totals.cpu_ns,
        totals.memory,
        None if totals.disk is None else min(totals.disk // _MIB, _MOST_MIB),
        totals.disk_read,
        totals.disk_written,
        totals.net_in,
        totals.net_out,
    )
    known = _BEGINS if record.begins else 0
    for bit, value in enumerate(values, 1):
        known |= (value is not None) << bit
    cpu, memory, disk, *rest = (value or 0 for value in values)
    hundredths = max(0, min(round(record.time * 100), _MOST_SECONDS * 100))
    seconds, part = divmod(hundredths, 100)
    body = _RECORD.pack(number % 2**16, known, part, seconds, disk, cpu, memory, *rest)
    return _CHECK.pack(zlib.crc32(body, zlib.crc32(id_))) + body


def _unpacked(id_: bytes, number: int, data: bytes, place: int) -> Record | None:
    """The record with that number at that place; None if it is not there."""
    body = data[place + _CHECK.size : place + _RECORD_SIZE]
    if len(body) < _RECORD.size or _CHECK.unpack_from(data, place)[0] != zlib.crc32(body, zlib.crc32(id_)):
        return None
    written, known, part, seconds, disk, cpu, memory, *rest = _RECORD.unpack(body)
    if written != number % 2**16:
        return None
    found = [value if known >> bit & 1 else None for bit, value in enumerate((cpu, memory, disk * _MIB, *rest), 1)]
    return Record(seconds + part / 100, bool(known & _BEGINS), Totals(*found))
