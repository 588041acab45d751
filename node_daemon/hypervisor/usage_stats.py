"""What libvirt says about the usage of guests: one call for all of them.

libvirt answers with a flat mapping for each domain. Anything in it may be missing, or be something else than a number:
then it is unknown. The test driver knows nothing but the state.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import libvirt

from domain.guest_usage import MOST_COUNT, DiskUsage, GuestUsage, InterfaceUsage
from node_daemon.hypervisor.domain_xml import domain_name

Stats = Mapping[str, Any]

#: Maximum number of disks, and of interfaces, of a guest; of characters of a name.
MOST_DEVICES, MOST_NAME = 64, 4096
_KIB = 1024
_GROUPS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
#: Of a domain that another call works on, only what is known without waiting.
_FLAGS = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING
    | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_PAUSED
    | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)
_INTERFACES = Path("/sys/class/net")


def ask(connection: Any) -> dict[str, GuestUsage]:
    """The usage of all guests in memory, by VM. Foreign domains are left out by their names. Raises libvirtError."""
    found: dict[str, GuestUsage] = {}
    for domain, stats in connection.getAllDomainStats(_GROUPS, _FLAGS):
        vm = domain.UUIDString()
        if domain.name() == domain_name(vm):
            boot = domain.ID()  # libvirt gives each start the next number
            found[vm] = parse(stats, boot if boot >= 0 else None)
    return found


def parse(stats: Stats, boot: int | None = None) -> GuestUsage:
    return GuestUsage(
        boot=boot,
        state=number(stats, "state.state"),
        cpu_ns=number(stats, "cpu.time"),
        vcpus=number(stats, "vcpu.current"),
        memory_maximum=kib(stats, "balloon.maximum"),
        memory_current=kib(stats, "balloon.current"),
        memory_rss=kib(stats, "balloon.rss"),
        memory_available=kib(stats, "balloon.available"),
        memory_unused=kib(stats, "balloon.unused"),
        memory_usable=kib(stats, "balloon.usable"),
        disks=tuple(_disk(stats, f"block.{each}", name) for each, name in _devices(stats, "block").items()),
        interfaces=tuple(_interface(stats, f"net.{each}", name) for each, name in _devices(stats, "net").items()),
    )


def _devices(stats: Stats, group: str) -> dict[int, str]:
    """The names of a group's devices, by their numbers. A device without a name of its own is left out."""
    found: dict[int, str] = {}
    for each in range(min(number(stats, f"{group}.count") or 0, MOST_DEVICES)):
        name = text(stats, f"{group}.{each}.name")
        if name and name not in found.values():
            found[each] = name
    return found


def _disk(stats: Stats, key: str, name: str) -> DiskUsage:
    return DiskUsage(
        device=name,
        file=text(stats, f"{key}.path"),
        read_bytes=number(stats, f"{key}.rd.bytes"),
        read_requests=number(stats, f"{key}.rd.reqs"),
        read_ns=number(stats, f"{key}.rd.times"),
        written_bytes=number(stats, f"{key}.wr.bytes"),
        write_requests=number(stats, f"{key}.wr.reqs"),
        write_ns=number(stats, f"{key}.wr.times"),
        flush_requests=number(stats, f"{key}.fl.reqs"),
        flush_ns=number(stats, f"{key}.fl.times"),
        allocation=number(stats, f"{key}.allocation"),
        capacity=number(stats, f"{key}.capacity"),
        physical=number(stats, f"{key}.physical"),
    )


def _interface(stats: Stats, key: str, name: str) -> InterfaceUsage:
    return InterfaceUsage(
        device=name,
        bridge=_bridge(name),
        received_bytes=number(stats, f"{key}.rx.bytes"),
        received_packets=number(stats, f"{key}.rx.pkts"),
        received_errors=number(stats, f"{key}.rx.errs"),
        received_drops=number(stats, f"{key}.rx.drop"),
        sent_bytes=number(stats, f"{key}.tx.bytes"),
        sent_packets=number(stats, f"{key}.tx.pkts"),
        sent_errors=number(stats, f"{key}.tx.errs"),
        sent_drops=number(stats, f"{key}.tx.drop"),
    )


def _bridge(interface: str) -> str:
    """The bridge that an interface of this host is plugged into; empty if there is none."""
    if "/" in interface or interface in (".", ".."):
        return ""
    try:
        return (_INTERFACES / interface / "master").readlink().name
    except (OSError, ValueError):
        return ""


def number(stats: Stats, name: str) -> int | None:
    value = stats.get(name)
    return value if type(value) is int and 0 <= value <= MOST_COUNT else None


def kib(stats: Stats, name: str) -> int | None:
    """Bytes; libvirt counts KiB."""
    value = number(stats, name)
    return value * _KIB if value is not None and value <= MOST_COUNT // _KIB else None


def text(stats: Stats, name: str) -> str:
    value = stats.get(name)
    return value if isinstance(value, str) and len(value) <= MOST_NAME else ""
