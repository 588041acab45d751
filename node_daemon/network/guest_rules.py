"""The rules of the table for the frames of guests (`guest_table.py`), as lines of nft.

Each guest has two chains, one for what it sends and one for what it gets. Maps name them by the guest's interface; an
interface of this node without chains is closed. While a frame is checked, its mark is the number of the guest that its
sender's address belongs to. Then it is the mark of its project. The rules of iptables know the packet by this mark.

Other programs of the host may change the mark. So a frame that crosses the bridge is checked again, and gets it again;
and what the host routes to a guest without a mark is dropped if the address of its sender belongs to a guest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from node_daemon.hypervisor.guest_network import GuestNetwork
from node_daemon.hypervisor.host_names import GUEST, GUEST_MASK

#: The number of addresses whose guests are known.
ADDRESSES = 65535
#: The hook of each chain that the kernel calls.
HOOKS = {
    "from": "prerouting priority -310",
    "across": "forward priority 310",
    "routed": "output priority 310",
    "to": "postrouting priority 310",
}
#: Parts of a DHCP message: the address that it gives, and the MAC address that it is about.
GIVEN, CLIENT = "@th,192,32", "@th,288,48"
#: A request for an Ethernet address of 6 bytes. With another type or length, a server would see another client.
REQUEST = "@th,64,24 0x010106"
#: An answer of a server with an address. Not an offer, if the type is the first option, as usual.
ANSWER = f"udp sport 67 udp dport 68 @th,64,8 2 {GIVEN} != 0 @th,1984,24 != 0x350102"
#: A packet whose lengths are right. Otherwise the kernel does not find its ports, so no rule about them holds.
KNOWN = "meta l4proto != 255"
#: Headers of IPv6 that can come before TCP, UDP or ICMPv6. If a fragment begins with one, what follows may be in a
#: later fragment, where no rule sees it.
EXTENSIONS = "{ 0, 43, 44, 51, 60, 135 }"


@dataclass(frozen=True)
class Chains:
    """What the chains of a guest depend on. `number`: no other guest has it. `mark`: of its project's packets."""

    mac: str
    number: int
    mark: int


def parts(table: str) -> list[str]:
    """What the table consists of, without rules."""
    return [
        f"add table bridge {table}",
        f"add map bridge {table} owners {{ type ipv4_addr : mark; flags dynamic; size {ADDRESSES}; }}",
        f"add set bridge {table} dropped {{ type ifname; flags dynamic; size {ADDRESSES}; counter; }}",
        f"add set bridge {table} denied {{ type ether_addr; flags dynamic; size {ADDRESSES}; counter; }}",
        *(f"add map bridge {table} {name} {{ type ifname : verdict; }}" for name in ("sending", "getting")),
        *(f"add chain bridge {table} {name}" for name in ("refuse", "deny", "pass", "elsewhere")),
        *(f"add chain bridge {table} {name} {{ type filter hook {hook}; }}" for name, hook in HOOKS.items()),
    ]


def of_all(table: str, taps: str, guests: Mapping[str, Chains], network: GuestNetwork) -> list[str]:
    """All rules. `taps`: how the names of the guests' interfaces begin. `guests`: the guest of each interface."""
    ours = f'"{taps}*"'
    others = [f"ether type ip udp sport 67 ip saddr != {_any_of(network.dhcp_servers)} drop"]
    unmarked = f"meta mark & {GUEST_MASK} != {GUEST} ether type ip meta mark set ip saddr map @owners"
    return [
        *_in(table, "refuse", "update @dropped { iifname }", "drop"),
        *_in(table, "deny", "update @denied { ether saddr }", "drop"),
        *_in(table, "pass", *(others if network.dhcp_servers else ())),
        *_in(table, "pass", f"ether type {_any_of(('ip', 'arp', *(('ip6',) if network.has_ipv6 else ())))} accept"),
        *_in(table, "pass", "drop"),
        *_in(table, "from", f"iifname {ours} iifname vmap @sending", f"iifname {ours} drop"),
        *_in(table, "across", f"iifname {ours} iifname vmap @sending", f"iifname {ours} drop"),
        *_in(table, "routed", f"oifname {ours} {unmarked} jump deny"),
        *_in(table, "to", "jump elsewhere", f"oifname {ours} oifname vmap @getting", f"oifname {ours} drop"),
        *(line for tap in sorted(guests) for line in of_guest(table, tap, guests[tap], network)),
        *elsewhere(table, (each.mac for each in guests.values()), network),
    ]


def elsewhere(table: str, macs: Iterable[str], network: GuestNetwork) -> list[str]:
    """An address that is given to others than guests of this node (`macs`) belongs to no guest of it any more."""
    forget = f"ether type ip {_server(network)}{ANSWER} delete @owners {{ {GIVEN} : 0 }}"
    return [*_in(table, "elsewhere", forget), *(here(table, mac) for mac in sorted(set(macs)))]


def here(table: str, mac: str) -> str:
    """Addresses that are given to this guest are not given elsewhere.

    A rule of its own, before the others: the kernel waits for up to 20 ms after a change that takes rules away.
    """
    return f"insert rule bridge {table} elsewhere ether type ip {ANSWER} {CLIENT} {_number(mac)} return"


def of_guest(table: str, tap: str, guest: Chains, network: GuestNetwork) -> list[str]:
    """The chains of one guest."""
    mac, number = guest.mac, guest.number
    asks = f"ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 {REQUEST} {CLIENT} {_number(mac)}"
    owner = f"@owners {{ {GIVEN} : {number} }}"
    accept = f"meta mark set {guest.mark} accept"
    ipv6 = (
        "ether type ip6 icmpv6 type { 134, 137 } jump refuse",
        "ether type ip6 udp sport 547 jump refuse",
        f"ether type ip6 frag nexthdr {EXTENSIONS} jump refuse",
        f"ether type ip6 {KNOWN} {accept}",
    )
    sends = (
        "meta mark set 0",
        f"ether saddr != {mac} jump refuse",
        f"ether type ip {asks} {accept}",
        "ether type ip udp sport 67 jump refuse",
        "ether type arp arp hlen != 6 jump refuse",
        "ether type arp arp plen != 4 jump refuse",
        f"ether type arp arp saddr ether != {mac} jump refuse",
        f"ether type arp arp saddr ip 0.0.0.0 {accept}",
        f"ether type ip {KNOWN} meta mark set ip saddr map @owners",
        "ether type arp meta mark set arp saddr ip map @owners",
        f"meta mark {number} {accept}",
        "ether type { ip, arp } jump refuse",
        "meta mark set 0",
        *(ipv6 if network.has_ipv6 else ()),
        "drop",
    )
    foreign = f"meta mark & {GUEST_MASK} == {GUEST} meta mark != {guest.mark} jump deny"
    answer = f"ether type ip {_server(network)}{ANSWER} {CLIENT} {_number(mac)}"
    gets = (foreign, f"{answer} delete {owner} update {owner}", "jump pass")
    return [
        *(f"add chain bridge {table} {side}-{tap}" for side in ("sends", "gets")),
        *(f"flush chain bridge {table} {side}-{tap}" for side in ("sends", "gets")),
        *_in(table, f"sends-{tap}", *sends),
        *_in(table, f"gets-{tap}", *gets),
        f'add element bridge {table} sending {{ "{tap}" : jump sends-{tap} }}',
        f'add element bridge {table} getting {{ "{tap}" : jump gets-{tap} }}',
    ]


def _in(table: str, chain: str, *rules: str) -> list[str]:
    return [f"add rule bridge {table} {chain} {rule}" for rule in rules]


def _server(network: GuestNetwork) -> str:
    """Matches what DHCP servers send."""
    return f"ip saddr {_any_of(network.dhcp_servers)} " if network.dhcp_servers else ""


def _number(mac: str) -> str:
    return f"0x{mac.replace(':', '')}"


def _any_of(values: Iterable[str]) -> str:
    return f"{{ {', '.join(values)} }}"
