"""The address of a client, also behind proxies that are trusted."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
UNKNOWN = "unknown"


def networks(setting: str) -> tuple[Network, ...]:
    """The networks of a setting: addresses and networks, separated by commas. Raises ValueError."""
    return tuple(ipaddress.ip_network(each.strip()) for each in setting.split(",") if each.strip())


def client(scope: Any, forwarded: str | None, trusted: Sequence[Network]) -> str:
    """The address of the client of a call.

    `forwarded`: the header `X-Forwarded-For`. Each proxy adds the address that called it at the end, so the client is
    the last address that is not a trusted proxy. Nothing that a client sends itself counts.
    """
    peer = scope.get("client")
    address = str(peer[0]) if peer else UNKNOWN
    hops = forwarded.split(",") if forwarded and trusted else []
    while hops and is_in(address, trusted):
        hop = canonical(hops.pop().strip())
        if hop is None:
            break
        address = hop
    return address


def network_of(address: str) -> str:
    """What one client can be expected to control: an IPv4 address, or the /64 network of an IPv6 address."""
    found = canonical(address)
    if found is None or "." in found:
        return found or address
    return str(ipaddress.ip_network(f"{found}/64", strict=False))


@lru_cache(maxsize=1024)
def is_in(address: str, trusted: Sequence[Network]) -> bool:
    found = canonical(address)
    return found is not None and any(ipaddress.ip_address(found) in network for network in trusted)


def canonical(text: str) -> str | None:
    """An address in its usual spelling; an IPv4 address within IPv6 as IPv4; None for any other text."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
