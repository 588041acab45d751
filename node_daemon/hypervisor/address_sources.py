"""The sources of a guest's addresses: its agent, DHCP leases, and the host's ARP table; read through libvirt.

The calls block: run them on a thread. Malformed answers and missing answers count as no addresses.
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
    """The addresses of the interface with that MAC address. Others, such as bridges of the guest, are ignored."""
    leases = _addresses(domain, _LEASE, mac)
    if leases is None:
        return Sighting(agent=_agent(domain, mac), arp=_addresses(domain, _ARP, mac) or ())
    expires = _expiries(domain, mac) if leases else {}
    return Sighting(
        agent=_agent(domain, mac),
        leases=tuple(Lease(address, expires.get(address)) for address in leases),
        arp=_addresses(domain, _ARP, mac) or (),
    )


def _agent(domain: Any, mac: str) -> tuple[str, ...] | None:
    with contextlib.suppress(libvirt.libvirtError):
        if guest_agent.listens(domain.XMLDesc()):
            guest_agent.limit_wait(domain)
            return _addresses(domain, _AGENT, mac)
    return None


def _addresses(domain: Any, source: int, mac: str) -> tuple[str, ...] | None:
    """The addresses that one source names; None if it does not answer or does not know the interface."""
    try:
        interfaces = domain.interfaceAddresses(source, 0)
    except (libvirt.libvirtError, UnicodeError):
        return None
    ours = [one for one in interfaces.values() if str(one.get("hwaddr") or "").lower() == mac.lower()]
    if not ours:
        return None
    texts = (entry.get("addr") for one in ours for entry in one.get("addrs") or ())
    return tuple(sorted({address for text in texts if (address := useful(text)) is not None}))


def useful(text: object) -> str | None:
    """An address that other hosts can reach, in its standard form; None for anything else."""
    try:
        address = ipaddress.ip_address(str(text).partition("%")[0])
    except ValueError:
        return None
    useless = address.is_link_local or address.is_loopback or address.is_multicast or address.is_unspecified
    return None if useless else str(address)


def _expiries(domain: Any, mac: str) -> Mapping[str, int]:
    """The expiry of each lease of that MAC address in seconds since 1970, by address, where libvirt knows it."""
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
