"""The text for Prometheus: what guests and hosts used at the last sample.

Names, units and labels of guests are those of libvirt-exporter, so that its dashboards work. Numbers that are unknown
are left out.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from domain.guest_usage import DiskUsage, GuestUsage, HostUsage, InterfaceUsage
from node_daemon.hypervisor.domain_xml import domain_name
from node_daemon.usage.sampler import Sample, Sampling

T = TypeVar("T")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Intervals after which a sample does not show the guests any more.
OLD = 2.5
_NS = 10**9


@dataclass(frozen=True)
class Metric(Generic[T]):
    """One metric. `of`: its value; None if it is unknown. `seconds`: the value is in nanoseconds, the metric is not."""

    name: str
    type: Literal["counter", "gauge"]
    help: str
    of: Callable[[T], int | None]
    seconds: bool = False


def _counter(name: str, help_: str, of: Callable[[T], int | None], *, seconds: bool = False) -> Metric[T]:
    return Metric(name, "counter", help_, of, seconds)


def _gauge(name: str, help_: str, of: Callable[[T], int | None]) -> Metric[T]:
    return Metric(name, "gauge", help_, of)


_INFO, _BLOCK, _NET = "libvirt_domain_info_", "libvirt_domain_block_stats_", "libvirt_domain_interface_stats_"
_MEMORY = "libvirt_domain_memory_stats_"

GUEST: Sequence[Metric[GuestUsage]] = (
    _gauge(f"{_INFO}maximum_memory_bytes", "Memory that the guest may have.", lambda of: of.memory_maximum),
    _gauge(f"{_INFO}memory_usage_bytes", "Memory that the guest has.", lambda of: of.memory_current),
    _gauge(f"{_INFO}virtual_cpus", "Virtual CPUs of the guest.", lambda of: of.vcpus),
    _counter(
        f"{_INFO}cpu_time_seconds_total",
        "CPU time of the guest's process on the host, with that of emulation.",
        lambda of: of.cpu_ns,
        seconds=True,
    ),
    _gauge(f"{_INFO}vstate", "libvirt's number of the domain's state: 1 running, 3 paused.", lambda of: of.state),
    _gauge(f"{_MEMORY}rss_bytes", "Memory of the guest's process on the host.", lambda of: of.memory_rss),
    _gauge(f"{_MEMORY}unused_bytes", "Memory that the guest does not use at all.", lambda of: of.memory_unused),
    _gauge(f"{_MEMORY}available_bytes", "Memory of the guest as it sees it.", lambda of: of.memory_available),
    _gauge(f"{_MEMORY}usable_bytes", "Memory that programs of the guest could get.", lambda of: of.memory_usable),
    _gauge(f"{_MEMORY}actual_balloon_bytes", "Memory that the balloon leaves to it.", lambda of: of.memory_current),
)
DISK: Sequence[Metric[DiskUsage]] = (
    _counter(f"{_BLOCK}read_bytes_total", "Bytes that the guest has read.", lambda of: of.read_bytes),
    _counter(f"{_BLOCK}read_requests_total", "Read requests.", lambda of: of.read_requests),
    _counter(f"{_BLOCK}read_time_seconds_total", "Time of read requests.", lambda of: of.read_ns, seconds=True),
    _counter(f"{_BLOCK}write_bytes_total", "Bytes that the guest has written.", lambda of: of.written_bytes),
    _counter(f"{_BLOCK}write_requests_total", "Write requests.", lambda of: of.write_requests),
    _counter(f"{_BLOCK}write_time_seconds_total", "Time of write requests.", lambda of: of.write_ns, seconds=True),
    _counter(f"{_BLOCK}flush_requests_total", "Flush requests.", lambda of: of.flush_requests),
    _counter(f"{_BLOCK}flush_time_seconds_total", "Time of flush requests.", lambda of: of.flush_ns, seconds=True),
    _gauge(f"{_BLOCK}allocation_bytes", "Bytes that the disk takes on the host.", lambda of: of.allocation),
    _gauge(f"{_BLOCK}capacity_bytes", "Size of the disk as the guest sees it.", lambda of: of.capacity),
    _gauge(f"{_BLOCK}physicalsize_bytes", "Size of the disk's file.", lambda of: of.physical),
)
INTERFACE: Sequence[Metric[InterfaceUsage]] = (
    _counter(f"{_NET}receive_bytes_total", "Bytes that came to the guest.", lambda of: of.received_bytes),
    _counter(f"{_NET}receive_packets_total", "Packets that came to the guest.", lambda of: of.received_packets),
    _counter(f"{_NET}receive_errors_total", "Errors of packets to the guest.", lambda of: of.received_errors),
    _counter(f"{_NET}receive_drops_total", "Dropped packets to the guest.", lambda of: of.received_drops),
    _counter(f"{_NET}transmit_bytes_total", "Bytes that the guest has sent.", lambda of: of.sent_bytes),
    _counter(f"{_NET}transmit_packets_total", "Packets that the guest has sent.", lambda of: of.sent_packets),
    _counter(f"{_NET}transmit_errors_total", "Errors of packets from the guest.", lambda of: of.sent_errors),
    _counter(f"{_NET}transmit_drops_total", "Dropped packets from the guest.", lambda of: of.sent_drops),
)
_NODE = "nebula_node_"
HOST: Sequence[Metric[HostUsage]] = (
    _counter(
        f"{_NODE}cpu_seconds_total", "CPU time that is not idle, of all CPUs.", lambda of: of.cpu_ns, seconds=True
    ),
    _gauge(f"{_NODE}cpus", "CPUs of the host.", lambda of: of.cpus),
    _gauge(f"{_NODE}memory_total_bytes", "Memory of the host.", lambda of: of.memory_total),
    _gauge(f"{_NODE}memory_used_bytes", "Memory that programs cannot get.", lambda of: of.memory_used),
    _gauge(f"{_NODE}disk_total_bytes", "Size of the data folder's file system.", lambda of: of.disk_total),
    _gauge(f"{_NODE}disk_used_bytes", "Used bytes of that file system.", lambda of: of.disk_used),
    _counter(f"{_NODE}disk_read_bytes_total", "Bytes read from all disks.", lambda of: of.disk_read),
    _counter(f"{_NODE}disk_written_bytes_total", "Bytes written to all disks.", lambda of: of.disk_written),
    _counter(f"{_NODE}network_receive_bytes_total", "Bytes that came to the host.", lambda of: of.net_in),
    _counter(f"{_NODE}network_transmit_bytes_total", "Bytes that left the host.", lambda of: of.net_out),
)


def of(sampling: Sampling) -> bytes:
    """The text of all nodes of this process."""
    return text(sampling.newest(), time.monotonic(), OLD * sampling.interval)


def text(samples: Iterable[Sample], now: float, patience: float) -> bytes:
    """The text. A sample older than `patience` seconds (`now`: by the monotonic clock) shows no guests, as one of a
    hypervisor that did not answer.
    """
    known = list(samples)
    fresh = [each for each in known if each.guests is not None and now - each.at <= patience]
    guests = [(vm, domain_name(vm), usage, each) for each in fresh for vm, usage in sorted((each.guests or {}).items())]
    lines = [
        "# HELP libvirt_up Whether the hypervisor answered the last question about its guests.",
        "# TYPE libvirt_up gauge",
        f"libvirt_up {int(bool(known) and len(fresh) == len(known))}",
    ]
    of_guests = [(_labels(domain=name), usage) for _, name, usage, _ in guests]
    of_disks = [
        (_labels(domain=name, source_file=disk.file, target_device=disk.device), disk)
        for _, name, usage, _ in guests
        for disk in usage.disks
    ]
    of_interfaces = [
        (_labels(domain=name, source_bridge=each.bridge, target_device=each.device), each)
        for _, name, usage, _ in guests
        for each in usage.interfaces
    ]
    _add(lines, GUEST, of_guests)
    _add(lines, DISK, of_disks)
    _add(lines, INTERFACE, of_interfaces)
    infos = [
        _labels(domain=name, uuid=vm, project=sample.projects[vm], node=sample.node)
        for vm, name, _, sample in guests
        if vm in sample.projects
    ]
    if infos:
        lines += ["# HELP nebula_vm_info The VM of a domain, and its project.", "# TYPE nebula_vm_info gauge"]
        lines += [f"nebula_vm_info{labels} 1" for labels in infos]
    _add(lines, HOST, [(_labels(node=each.node), each.host) for each in known])
    if known:
        name = f"{_NODE}sample_timestamp_seconds"
        lines += [f"# HELP {name} When the last sample was taken.", f"# TYPE {name} gauge"]
        lines += [f"{name}{_labels(node=each.node)} {each.time:.3f}" for each in known]
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def _add(lines: list[str], metrics: Sequence[Metric[T]], rows: Sequence[tuple[str, T]]) -> None:
    for metric in metrics:
        of, head = metric.of, len(lines)
        if metric.seconds:
            lines += [f"{metric.name}{labels} {value / _NS}" for labels, row in rows if (value := of(row)) is not None]
        else:
            lines += [f"{metric.name}{labels} {value}" for labels, row in rows if (value := of(row)) is not None]
        if len(lines) > head:
            lines[head:head] = [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.type}"]


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
