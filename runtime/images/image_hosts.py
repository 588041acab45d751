"""Decides from which addresses images may be fetched. Pure: names are resolved elsewhere, each address is checked here.

- Public addresses are allowed.
- Private ones and loopback are refused, unless `NEBULA_IMAGE_HOSTS` names them.
- Link-local addresses (cloud metadata is among them), multicast, unspecified, broadcast and reserved ones are always
  refused.
- An IPv6 address that contains an IPv4 address is checked by that as well.
- The platform's own ports are refused on every address.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The default ports of the platform's servers.
USUAL_PORTS = frozenset({4222, 5432, 6222, 8222, 8700, 8775, 9177})

_LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_PRIVATE: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),  # carrier-grade NAT
    IPv4Network("198.18.0.0/15"),  # benchmarks
    IPv6Network("fc00::/7"),
)
#: Metadata services of clouds in private ranges.
_METADATA = (IPv4Address("100.100.100.200"), IPv4Address("192.0.0.192"), IPv6Address("fd00:ec2::254"))
_NEVER: tuple[Network, ...] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.0.2.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("198.51.100.0/24"),
    IPv4Network("203.0.113.0/24"),
    IPv4Network("224.0.0.0/3"),  # multicast, reserved, broadcast
    IPv6Network("::/128"),
    IPv6Network("100::/64"),
    IPv6Network("2001::/32"),  # Teredo: its IPv4 addresses belong to whoever runs the relay
    IPv6Network("2001:db8::/32"),
    IPv6Network("3fff::/20"),
    IPv6Network("fe80::/10"),
    IPv6Network("fec0::/10"),
    IPv6Network("ff00::/8"),
)
_PUBLIC_V6 = IPv6Network("2000::/3")
#: IPv6 networks whose addresses contain an IPv4 address, and the number of bits after it.
_CARRIERS: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated
    (IPv6Network("::/96"), 0),  # IPv4-compatible
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("2002::/16"), 80),  # 6to4
)
#: The network that a site may use for its own NAT64.
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_NAME = re.compile(r"[a-z0-9*?]([a-z0-9_*?-]*\.)*[a-z0-9_*?-]*")


class Denied(Exception):
    """No image may be fetched from there. The text says why, and what to do."""


@dataclass(frozen=True)
class ImageHosts:
    """The hosts that `NEBULA_IMAGE_HOSTS` allows in addition to public addresses, and the platform's own ports."""

    names: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    ports: frozenset[int] = USUAL_PORTS

    @classmethod
    def of(cls, setting: str, ports: Collection[int] = ()) -> "ImageHosts":
        """Parse the setting: names, addresses and networks, separated by commas. Raises ValueError."""
        names: list[str] = []
        networks: list[Network] = []
        for entry in filter(None, (part.strip().lower() for part in setting.split(","))):
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                if not _NAME.fullmatch(entry) or "/" in entry or re.fullmatch(r"[0-9.]+", entry):
                    raise ValueError(f"{entry!r} is not an address, a network or a host name") from None
                names.append(entry)
        return cls(tuple(names), tuple(networks), USUAL_PORTS | frozenset(ports))

    def check(self, host: str, address: Address, port: int) -> None:
        """Raises Denied unless an image may be fetched from this address of this host."""
        if port in self.ports:
            raise Denied(f"port {port} belongs to the platform itself: no image is fetched from it")
        for each in addresses_in(address):
            self._check(host.lower().rstrip("."), each)

    def _check(self, host: str, address: Address) -> None:
        if address in _METADATA or _among(address, _NEVER):
            raise Denied(
                f"{address} is link-local, multicast, reserved or a metadata service: no image is fetched there"
            )
        if _among(address, _LOOPBACK):
            # Only an entry within loopback allows it: `*` or 0.0.0.0/0 does not include this host.
            if not any(_within_loopback(network) and _in(address, network) for network in self.networks):
                raise Denied(f"{address} is this host itself; {_help(address)}")
        elif _private(address) and not self._allowed(host, address):
            raise Denied(f"{address} is a private address; {_help(address)}")

    def _allowed(self, host: str, address: Address) -> bool:
        return any(_in(address, network) for network in self.networks) or any(
            fnmatchcase(host, name) for name in self.names
        )


def addresses_in(address: Address) -> tuple[Address, ...]:
    """The addresses to check for an address: the IPv4 address that it contains, or else itself."""
    if isinstance(address, IPv6Address):
        if int(address) < 2:  # unspecified and loopback contain none
            return (address,)
        if address in _LOCAL_NAT64:  # it may be a NAT64 or a normal network: check both
            return (address, IPv4Address(int(address) & 0xFFFFFFFF))
        for network, behind in _CARRIERS:
            if address in network:
                return (IPv4Address((int(address) >> behind) & 0xFFFFFFFF),)
    return (address,)


def literal(host: str) -> Address | None:
    """The address if the host is one, without its zone; None for a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _private(address: Address) -> bool:
    """Whether it is not public. Unknown ranges count as private."""
    if _among(address, _PRIVATE):
        return True
    return isinstance(address, IPv6Address) and address not in _PUBLIC_V6


def _in(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _among(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(_in(address, network) for network in networks)


def _within_loopback(network: Network) -> bool:
    if isinstance(network, IPv4Network):
        return network.subnet_of(_LOOPBACK[0])
    return network.subnet_of(_LOOPBACK[1])


def _help(address: Address) -> str:
    return f"to allow it, set NEBULA_IMAGE_HOSTS={address} (networks, and names such as *.lan, are possible too)"
