"""What the host's firewall needs to know about the network of guests."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class GuestNetwork:
    """The network of guests as it is now.

    `dhcp_servers`: the addresses of this host's DHCP servers. Only their answers count; without one, all answers do.
    `leases`: the MAC addresses to which they gave IPv4 addresses, by address.
    """

    dhcp_servers: tuple[str, ...] = ()
    has_ipv6: bool = False
    leases: Mapping[str, str] = field(default_factory=dict)
