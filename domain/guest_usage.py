"""What guests and hosts use: CPU, memory, disk, network. A node measures it, keeps it for a day, and returns it.

None always means that the number is unknown: it is never a guess, and never zero instead. Counters begin at zero with
each boot of a guest. A sample (`GuestUsage`, `HostUsage`) stays on its node. A series crosses the bus: a node may send
anything, so its type limits all numbers and lengths, and raises ValidationError.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, Field, model_validator

from domain.base import Message

#: Maximum number of points of a series, of seconds that it goes back, and of seconds between two points.
MOST_POINTS, MOST_SECONDS = 500, 24 * 3600
#: Maximum of a number of bytes, or of bytes per second: programs that read JSON keep it exactly.
MOST_BYTES = 2**53 - 1
#: Maximum number of CPUs of a host, or of CPUs in use.
MOST_CPUS = 100_000
#: Maximum of a counter of the hypervisor or the kernel.
MOST_COUNT = 2**63 - 1

Cores = Annotated[float, Field(ge=0, le=MOST_CPUS, allow_inf_nan=False)]
Amount = Annotated[int, Field(ge=0, le=MOST_BYTES)]


# ── samples ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Counters since the boot, and sizes, of one disk of a guest. Times are in nanoseconds."""

    #: its name in the guest, such as `vda`, and its file on the host
    device: str
    file: str = ""
    read_bytes: int | None = None
    read_requests: int | None = None
    read_ns: int | None = None
    written_bytes: int | None = None
    write_requests: int | None = None
    write_ns: int | None = None
    flush_requests: int | None = None
    flush_ns: int | None = None
    #: bytes that it takes on the host, size that the guest sees, and size of the file
    allocation: int | None = None
    capacity: int | None = None
    physical: int | None = None


@dataclass(frozen=True, slots=True)
class InterfaceUsage:
    """Counters since the boot of one network interface of a guest, as the guest sees it: `received` came to it."""

    #: its name on the host, and the bridge that it is plugged into (empty: unknown)
    device: str
    bridge: str = ""
    received_bytes: int | None = None
    received_packets: int | None = None
    received_errors: int | None = None
    received_drops: int | None = None
    sent_bytes: int | None = None
    sent_packets: int | None = None
    sent_errors: int | None = None
    sent_drops: int | None = None


@dataclass(frozen=True, slots=True)
class GuestUsage:
    """Counters since the boot, and levels, of a guest in memory. Sizes are in bytes."""

    #: a number that changes with each boot; None if it is unknown
    boot: int | None = None
    #: libvirt's number of the state, such as 1 (running) or 3 (paused)
    state: int | None = None
    #: CPU time of its process on the host, in nanoseconds; with an emulated CPU this includes the emulation
    cpu_ns: int | None = None
    vcpus: int | None = None
    #: memory that it may have, and that it has
    memory_maximum: int | None = None
    memory_current: int | None = None
    #: memory of its process on the host
    memory_rss: int | None = None
    #: what the driver of its memory balloon says: its memory, what of it is unused, and what programs could get
    memory_available: int | None = None
    memory_unused: int | None = None
    memory_usable: int | None = None
    disks: tuple[DiskUsage, ...] = ()
    interfaces: tuple[InterfaceUsage, ...] = ()

    @property
    def totals(self) -> "Totals":
        disks, interfaces = self.disks, self.interfaces
        return Totals(
            cpu_ns=self.cpu_ns,
            memory=self.memory_rss,
            disk=total(each.allocation for each in disks),
            disk_read=total(each.read_bytes for each in disks),
            disk_written=total(each.written_bytes for each in disks),
            net_in=total(each.received_bytes for each in interfaces),
            net_out=total(each.sent_bytes for each in interfaces),
        )

    @property
    def sources(self) -> tuple[object, ...]:
        """What the totals are made of. Between two samples that differ in it, the totals cannot be compared."""
        reading = tuple(each.device for each in self.disks if each.read_bytes is not None)
        receiving = tuple(each.device for each in self.interfaces if each.received_bytes is not None)
        return self.boot, reading, receiving

    @property
    def size(self) -> "UsageSize":
        return UsageSize(
            cpus=self.vcpus,
            memory_bytes=capped(self.memory_maximum),
            disk_bytes=capped(total(each.capacity for each in self.disks)),
        )


@dataclass(frozen=True, slots=True)
class HostUsage:
    """Counters since the boot of a host, and levels. Sizes are in bytes."""

    boot: str = ""
    #: CPU time of all its CPUs, without idle time and waits for disks, in nanoseconds
    cpu_ns: int | None = None
    cpus: int | None = None
    memory_total: int | None = None
    #: memory that programs cannot get without swapping
    memory_used: int | None = None
    #: the file system of the node's data folder
    disk_total: int | None = None
    disk_used: int | None = None
    #: of its physical disks and network interfaces
    disk_read: int | None = None
    disk_written: int | None = None
    net_in: int | None = None
    net_out: int | None = None
    #: the names of these disks and interfaces
    devices: tuple[str, ...] = ()

    @property
    def totals(self) -> "Totals":
        return Totals(
            cpu_ns=self.cpu_ns,
            memory=self.memory_used,
            disk=self.disk_used,
            disk_read=self.disk_read,
            disk_written=self.disk_written,
            net_in=self.net_in,
            net_out=self.net_out,
        )

    @property
    def sources(self) -> tuple[object, ...]:
        """As for a guest."""
        return self.boot, self.devices

    @property
    def size(self) -> "UsageSize":
        return UsageSize(cpus=self.cpus, memory_bytes=capped(self.memory_total), disk_bytes=capped(self.disk_total))


@dataclass(frozen=True, slots=True)
class Totals:
    """What a series keeps of one sample, over all devices: counters (`cpu_ns`, `disk_read` …) and levels (`memory`,
    `disk`).
    """

    cpu_ns: int | None = None
    memory: int | None = None
    disk: int | None = None
    disk_read: int | None = None
    disk_written: int | None = None
    net_in: int | None = None
    net_out: int | None = None


def total(numbers: Iterable[int | None]) -> int | None:
    """The sum of the known numbers; None if none is known."""
    known = [number for number in numbers if number is not None]
    return min(sum(known), MOST_COUNT) if known else None


def capped(number: int | None) -> int | None:
    return None if number is None else min(number, MOST_BYTES)


# ── series ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class UsageSize(Message):
    """The size of a guest or a host: 100 % of its usage."""

    cpus: int | None = Field(default=None, ge=0, le=MOST_CPUS)
    memory_bytes: Amount | None = None
    disk_bytes: Amount | None = None


class UsagePoint(Message):
    """The averages of one step of a series. Null: nothing is known of this step, as while a guest does not run."""

    at: AwareDatetime = Field(description="when the step ends")
    cpu: Cores | None = Field(default=None, description="CPUs in use")
    memory_bytes: Amount | None = Field(default=None, description="memory in use on the host")
    disk_bytes: Amount | None = Field(default=None, description="disk space in use on the host")
    disk_read: Amount | None = Field(default=None, description="bytes per second")
    disk_written: Amount | None = Field(default=None, description="bytes per second")
    net_in: Amount | None = Field(default=None, description="bytes per second")
    net_out: Amount | None = Field(default=None, description="bytes per second")


Numbers = Annotated[tuple[Amount | None, ...], Field(max_length=MOST_POINTS)]


class UsageSeries(Message):
    """Averages of equal steps, the earliest first, as columns: each has one number for each step.

    `start`: when the first step begins. Units are those of `UsagePoint`.
    """

    start: AwareDatetime
    step_seconds: float = Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False)
    size: UsageSize = UsageSize()
    cpu: Annotated[tuple[Cores | None, ...], Field(max_length=MOST_POINTS)]
    memory_bytes: Numbers
    disk_bytes: Numbers
    disk_read: Numbers
    disk_written: Numbers
    net_in: Numbers
    net_out: Numbers

    @model_validator(mode="after")
    def _even(self) -> "UsageSeries":
        if len({len(each) for each in self._columns()}) > 1:
            raise ValueError("its columns have different lengths")
        try:
            _ = self.end
        except OverflowError:
            raise ValueError("it ends after the last time that there is") from None
        return self

    def _columns(self) -> tuple[tuple[float | None, ...], ...]:
        amounts = (self.memory_bytes, self.disk_bytes, self.disk_read, self.disk_written, self.net_in, self.net_out)
        return (self.cpu, *amounts)

    @property
    def end(self) -> datetime:
        """When the last step ends."""
        return self.start + timedelta(seconds=self.step_seconds * len(self.cpu))

    def points(self) -> tuple[UsagePoint, ...]:
        step = timedelta(seconds=self.step_seconds)
        return tuple(
            UsagePoint(
                at=self.start + step * (number + 1),
                cpu=cpu,
                memory_bytes=memory,
                disk_bytes=disk,
                disk_read=read,
                disk_written=written,
                net_in=received,
                net_out=sent,
            )
            for number, (cpu, memory, disk, read, written, received, sent) in enumerate(
                zip(
                    self.cpu,
                    self.memory_bytes,
                    self.disk_bytes,
                    self.disk_read,
                    self.disk_written,
                    self.net_in,
                    self.net_out,
                    strict=True,
                )
            )
        )
