"""Who can say which addresses a guest has: its agent, DHCP leases, the host's ARP table; asked through libvirt.

Blocking calls, for a thread. What makes no sense was not said; who does not answer says nothing.
"""

import contextlib
import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

import libvirt

from node_daemon.hypervisor import guest_agent, networks
from node_daemon.hypervisor.hypervisor import Lease, Sighting

_AGENT = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
_LEASE = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
_ARP = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP


def ask(domain: Any, mac: str) -> Sighting:
    """What they say of the interface with that MAC address alone: a guest has bridges and tunnels of its own."""
    leases = _said(domain, _LEASE, mac)
    if leases is None:
        return Sighting(agent=_agent(domain, mac), arp=_said(domain, _ARP, mac) or ())
    expires = _expiries(domain, mac) if leases else {}
    return Sighting(
        agent=_agent(domain, mac),
        leases=tuple(Lease(address, expires.get(address)) for address in leases),
        arp=_said(domain, _ARP, mac) or (),
    )


def _agent(domain: Any, mac: str) -> tuple[str, ...] | None:
    with contextlib.suppress(libvirt.libvirtError):
        if guest_agent.listens(domain.XMLDesc()):
            guest_agent.be_brief(domain)
            return _said(domain, _AGENT, mac)
    return None


def _said(domain: Any, source: int, mac: str) -> tuple[str, ...] | None:
    """None where nobody answers, or the interface is not known there."""
    try:
        interfaces = domain.interfaceAddresses(source, 0)
    except (libvirt.libvirtError, UnicodeError):
        return None
    ours = [one for one in interfaces.values() if str(one.get("hwaddr") or "").lower() == mac.lower()]
    if not ours:
        return None
    said = (entry.get("addr") for one in ours for entry in one.get("addrs") or ())
    return tuple(sorted({address for text in said if (address := useful(text)) is not None}))


def useful(text: object) -> str | None:
    """An address that somebody else can reach, as it is written; None for anything else."""
    try:
        address = ipaddress.ip_address(str(text).partition("%")[0])
    except ValueError:
        return None
    useless = address.is_link_local or address.is_loopback or address.is_multicast or address.is_unspecified
    return None if useless else str(address)


def _expiries(domain: Any, mac: str) -> Mapping[str, int]:
    """When the leases of that MAC address end, by address, as far as libvirt says."""
    found: dict[str, int] = {}
    for lease in _leases(domain, mac):
        address, expires = useful(lease.get("ipaddr")), lease.get("expirytime")
        if address is not None and isinstance(expires, int) and expires > 0:
            found[address] = expires
    return found


def _leases(domain: Any, mac: str) -> Iterator[Mapping[str, object]]:
    with contextlib.suppress(libvirt.libvirtError, UnicodeError):
        for name in sorted(networks.of(domain.XMLDesc())):
            yield from domain.connect().networkLookupByName(name).DHCPLeases(mac)
