"""What simulated guests and hosts use: steady functions of the VM, its boot and the time. Nothing is stored."""

import math
import zlib
from collections.abc import Awaitable, Callable, Mapping

from domain.guest_usage import MOST_COUNT, DiskUsage, GuestUsage, HostUsage, InterfaceUsage, Totals
from node_daemon.hypervisor.hypervisor import Capacity
from node_daemon.simulation.simulated_host import Run

_MIB, _GIB, _NS = 1024**2, 1024**3, 10**9
#: Seconds of a wave of usage, and bytes per second of a guest at its mean.
_WAVE, _DISK_RATE, _NET_RATE = 1800.0, 400_000, 100_000
#: Bytes that a host needs for itself.
_HOST_MEMORY, _HOST_DISK = 2 * _GIB, 10 * _GIB


def usage_of(vm: str, run: Run, now: float) -> GuestUsage:
    """The usage of a guest in memory. Its counters do not move while its CPUs are stopped."""
    size = run.tag.size
    vcpus, memory, disk = (size.vcpus, size.memory_mib, size.disk_gib) if size is not None else (1, 512, 1)
    character = zlib.crc32(vm.encode())
    share, wave = (character % 60 + 5) / 100, (character >> 8) % 1000 / 1000
    seconds = max(0.0, (now if run.still is None else run.still) - run.up_at)
    worked = _worked(seconds, wave)
    read, written = int(share * worked * _DISK_RATE), int(share * worked * _DISK_RATE / 2)
    received, sent = int(share * worked * _NET_RATE), int(share * worked * _NET_RATE / 2)
    taken = min(disk * _GIB, disk * _GIB // 8 + written)
    return GuestUsage(
        boot=run.tag.boots * 2**16 + run.resets % 2**16,
        state=1 if run.still is None else 3,
        cpu_ns=int(share * worked * vcpus * _NS),
        vcpus=vcpus,
        memory_maximum=memory * _MIB,
        memory_current=memory * _MIB,
        memory_rss=int(memory * _MIB * (0.3 + 0.5 * min(1.0, seconds / _WAVE) * share)),
        memory_available=memory * _MIB,
        memory_unused=memory * _MIB // 2,
        memory_usable=memory * _MIB // 2,
        disks=(
            DiskUsage(
                device="vda",
                file=f"/simulated/{vm}/root.qcow2",
                read_bytes=read,
                read_requests=read // 4096,
                read_ns=read * 10,
                written_bytes=written,
                write_requests=written // 4096,
                write_ns=written * 20,
                flush_requests=written // 2**20,
                flush_ns=written,
                allocation=taken,
                capacity=disk * _GIB,
                physical=taken,
            ),
        ),
        interfaces=(
            InterfaceUsage(
                device=f"sim{character:08x}",
                bridge="simulated",
                received_bytes=received,
                received_packets=received // 800,
                received_errors=0,
                received_drops=0,
                sent_bytes=sent,
                sent_packets=sent // 800,
                sent_errors=0,
                sent_drops=0,
            ),
        ),
    )


def _worked(seconds: float, wave: float) -> float:
    """The integral of `1 + sin` over this time: it never falls. `wave`: where in the wave it begins."""
    turn, begin = 2 * math.pi / _WAVE, 2 * math.pi * wave
    return max(0.0, seconds + (math.cos(begin) - math.cos(begin + turn * seconds)) / turn)


class SimulatedHostUsage:
    """The usage of a simulated host: that of its guests, and a little of its own. `ask`: asks the hypervisor.

    The counters of the host must not fall when a guest ends, so what guests use is summed up from one call to the next.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[Mapping[str, GuestUsage]]], boot: str, capacity: Capacity, disk_gib: int
    ) -> None:
        self._ask = ask
        self._boot, self._capacity, self._disk = boot, capacity, disk_gib * _GIB
        self._before: dict[str, tuple[int | None, Totals]] = {}
        self._sums = {"cpu_ns": 0, "disk_read": 0, "disk_written": 0, "net_in": 0, "net_out": 0}
        self._usage = self._sum({})

    async def guests(self) -> Mapping[str, GuestUsage]:
        """The usage of all guests now. Raises Unreachable, Refused."""
        found = await self._ask()
        self._usage = self._sum(found)
        return found

    def host(self) -> HostUsage:
        """The usage of the host, when its guests were last asked for."""
        return self._usage

    def _sum(self, guests: Mapping[str, GuestUsage]) -> HostUsage:
        memory, disk = _HOST_MEMORY, _HOST_DISK
        now: dict[str, tuple[int | None, Totals]] = {}
        for vm, guest in guests.items():
            totals = guest.totals
            now[vm] = guest.boot, totals
            memory, disk = memory + (totals.memory or 0), disk + (totals.disk or 0)
            boot, before = self._before.get(vm, (None, totals))
            for name in self._sums:
                earlier = getattr(before, name) if boot == guest.boot else getattr(totals, name)
                self._sums[name] += max(0, (getattr(totals, name) or 0) - (earlier or 0))
        self._before = now
        return HostUsage(
            boot=self._boot,
            devices=(),
            cpus=self._capacity.vcpus,
            memory_total=self._capacity.memory_mib * _MIB,
            memory_used=min(memory, self._capacity.memory_mib * _MIB),
            disk_total=self._disk,
            disk_used=min(disk, self._disk),
            **{name: min(value, MOST_COUNT) for name, value in self._sums.items()},
        )
