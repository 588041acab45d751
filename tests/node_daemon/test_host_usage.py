"""What the host uses, from files like the kernel's, and from this host's own."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from domain.guest_usage import HostUsage
from node_daemon.usage.host import Host

TICK = 10**9 // os.sysconf("SC_CLK_TCK")
FILES = {
    "proc/sys/kernel/random/boot_id": "b00t\n",
    "proc/stat": "cpu  10 1 5 1000 50 2 3 4 7 0\ncpu0 5 0 2 500 25 1 1 2 0 0\ncpu1 5 1 3 500 25 1 2 2 0 0\nintr 9\n",
    "proc/meminfo": "MemTotal:        1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\nHugePages_Total: 0\n",
    "proc/diskstats": (
        "   8       0 sda 1 0 100 5 2 0 200 6 0 0 0\n   8       1 sda1 1 0 90 5 2 0 190 6 0 0 0\n"
        " 253       0 dm-0 1 0 90 5 2 0 190 6 0 0 0\n   7       0 loop0 1 0 7 5 2 0 8 6 0 0 0\n"
        " 259       0 nvme0n1 1 0 10 5 2 0 20 6 0 0 0\n"
    ),
    "proc/net/dev": (
        "Inter-|   Receive   |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes\n"
        "    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n"
        "virbr0: 70 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n  eth1:5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n"
    ),
    "proc/net/route": "Iface\tDestination\tGateway\nvirbr0\t007AA8C0\t00000000\nveth9\t00000000\t0100000A\n",
}
BLOCKS = ("sda", "dm-0", "loop0", "nvme0n1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in BLOCKS:
        (tmp_path / "sys/block" / name).mkdir(parents=True)
    for name in ("lo", "virbr0", "eth0/device", "eth1/device"):
        (tmp_path / "sys/class/net" / name).mkdir(parents=True)
    return tmp_path


def test_a_host(root: Path) -> None:
    found = Host(root, root).usage()
    assert (found.boot, found.cpus, found.cpu_ns) == ("b00t", 2, 25 * TICK)
    assert (found.memory_total, found.memory_used) == (1000 * 1024, 600 * 1024)
    assert (found.disk_read, found.disk_written) == (110 * 512, 220 * 512), "no partition, nor what is on other disks"
    assert (found.net_in, found.net_out) == (105, 56), "no bridge, nor interfaces of guests"
    assert found.devices == ("nvme0n1", "sda", "eth0", "eth1")
    stat = os.statvfs(root)
    assert found.disk_total == stat.f_blocks * stat.f_frsize
    assert found.disk_used is not None and 0 < found.disk_used <= found.disk_total


def test_a_host_without_devices_of_its_own_counts_its_default_route(root: Path) -> None:
    for name in ("eth0", "eth1"):
        (root / "sys/class/net" / name / "device").rmdir()
    (root / "proc/net/dev").write_text(FILES["proc/net/dev"] + " veth9: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n")
    found = Host(root, root).usage()
    assert (found.net_in, found.net_out) == (1, 2)


def test_another_disk_begins_a_new_line(root: Path) -> None:
    before = Host(root, root).usage()
    (root / "sys/block/sdb").mkdir()
    (root / "proc/diskstats").write_text(FILES["proc/diskstats"] + "   8      16 sdb 1 0 5000 5 2 0 200 6 0 0 0\n")
    assert Host(root, root).usage().sources != before.sources


def test_nothing_is_there(tmp_path: Path) -> None:
    assert Host(tmp_path / "none", tmp_path).usage() == HostUsage()


SPOILT: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "words": lambda text: text.replace("0", "x").replace("1", "-"),
    "huge": lambda text: text.replace(" 1", " 1" + "9" * 30),
    "cut": lambda text: text[: len(text) // 2],
    "short lines": lambda text: "\n".join(line[:9] for line in text.splitlines()),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", SPOILT)
def test_what_is_in_these_files_may_be_anything(root: Path, name: str, how: str) -> None:
    (root / name).write_text(SPOILT[how](FILES[name]))
    found = Host(root, root).usage()
    numbers = (found.cpu_ns, found.memory_used, found.disk_read, found.net_in)
    assert all(number is None or 0 <= number < 2**63 for number in numbers)


def test_this_host() -> None:
    first, second = Host(Path("/")).usage(), Host(Path("/")).usage()
    assert first.cpus and first.cpu_ns and first.memory_used and first.disk_total
    assert second.cpu_ns is not None and second.cpu_ns >= first.cpu_ns
    assert first.sources == second.sources
