"""What this host uses, from the kernel's own files. A number that cannot be read is None."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from domain.guest_usage import MOST_COUNT, HostUsage, total

SECTOR = 512
KIB = 1024
#: Names of block devices that have no disk of their own, or the disk of others.
_STACKED = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd")


class Host:
    """`data`: a folder of the file system that has the disks of guests. `root`: where `proc` and `sys` are. Blocks."""

    def __init__(self, data: Path, root: Path = Path("/")) -> None:
        self._data = data
        self._proc, self._sys = root / "proc", root / "sys"
        self._ticks = os.sysconf("SC_CLK_TCK")

    def usage(self) -> HostUsage:
        cpu_ns, cpus = self._cpu()
        memory = self._memory()
        total, available = memory.get("MemTotal"), memory.get("MemAvailable")
        disk_total, disk_used = self._file_system()
        disks, interfaces = self._disks(), self._interfaces()
        disk_read, disk_written = _sums(disks)
        net_in, net_out = _sums(interfaces)
        return HostUsage(
            boot=self._text("sys/kernel/random/boot_id").strip(),
            devices=(*sorted(disks), *sorted(interfaces)),
            cpu_ns=cpu_ns,
            cpus=cpus,
            memory_total=total,
            memory_used=total - available
            if total is not None and available is not None and available <= total
            else None,
            disk_total=disk_total,
            disk_used=disk_used,
            disk_read=disk_read,
            disk_written=disk_written,
            net_in=net_in,
            net_out=net_out,
        )

    def _text(self, name: str) -> str:
        try:
            return (self._proc / name).read_text(errors="replace")
        except OSError:
            return ""

    def _cpu(self) -> tuple[int | None, int | None]:
        """The time of all CPUs without `idle` and `iowait`, and how many there are. The time of guests is in `user`."""
        lines = [line.split() for line in self._text("stat").splitlines() if line.startswith("cpu")]
        cpus = sum(1 for line in lines if line[0] != "cpu") or None
        for name, *fields in lines:
            ticks = [_number(field) for field in fields[:8]]
            if name == "cpu" and len(ticks) == 8 and None not in ticks:
                known = [tick or 0 for tick in ticks]
                return (sum(known) - known[3] - known[4]) * 10**9 // self._ticks, cpus
        return None, cpus

    def _memory(self) -> dict[str, int]:
        """Bytes, by their name in `meminfo`."""
        found: dict[str, int] = {}
        for line in self._text("meminfo").splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            number = _number(words[0]) if len(words) == 2 and words[1] == "kB" else None
            if number is not None:
                found[name] = number * KIB
        return found

    def _file_system(self) -> tuple[int | None, int | None]:
        try:
            found = os.statvfs(self._data)
        except OSError:
            return None, None
        return found.f_blocks * found.f_frsize, (found.f_blocks - found.f_bfree) * found.f_frsize

    def _disks(self) -> dict[str, tuple[int, int]]:
        """Bytes that each disk has read and written. What is built on other disks would count twice."""
        disks = {name for name in self._names("block") if not name.startswith(_STACKED)}
        found: dict[str, tuple[int, int]] = {}
        for line in self._text("diskstats").splitlines():
            fields = line.split()
            if len(fields) < 10 or fields[2] not in disks:
                continue
            read, written = _number(fields[5]), _number(fields[9])
            if read is not None and written is not None:
                found[fields[2]] = read * SECTOR, written * SECTOR
        return found

    def _interfaces(self) -> dict[str, tuple[int, int]]:
        """Bytes that came to this host and left it, by interfaces with a device, or else those with a default route.

        Bridges and the interfaces of guests would count the same bytes again.
        """
        devices = {name for name in self._names("class/net") if (self._sys / "class/net" / name / "device").exists()}
        interfaces = devices or self._routed()
        found: dict[str, tuple[int, int]] = {}
        for line in self._text("net/dev").splitlines():
            name, _, rest = line.partition(":")
            fields = rest.split()
            if name.strip() not in interfaces or len(fields) < 9:
                continue
            received, sent = _number(fields[0]), _number(fields[8])
            if received is not None and sent is not None:
                found[name.strip()] = received, sent
        return found

    def _routed(self) -> set[str]:
        lines = [line.split() for line in self._text("net/route").splitlines()[1:]]
        return {line[0] for line in lines if len(line) > 1 and line[1] == "00000000"}

    def _names(self, folder: str) -> set[str]:
        with contextlib.suppress(OSError):
            return {each.name for each in (self._sys / folder).iterdir()}
        return set()


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= MOST_COUNT else None


def _sums(devices: Mapping[str, tuple[int, int]]) -> tuple[int | None, int | None]:
    return total(each for each, _ in devices.values()), total(each for _, each in devices.values())
