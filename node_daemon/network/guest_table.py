"""The table of nftables for the frames of guests: none uses the addresses of another one, or reaches other projects.

- A guest sends with its own MAC address, from IPv4 addresses that the DHCP server of the network gave it. The kernel
  learns them from the server's answers: an address belongs to the guest that it was given to last.
- A guest cannot be a DHCP server. It sends and gets nothing but IPv4 and ARP; on a network with IPv6 also IPv6, but no
  router advertisements, no redirects and no answers of a DHCP server.

- A guest gets nothing from guests of other projects on this host, neither over the bridge nor by way of the host.

Each guest has two chains, one for what it sends and one for what it gets. Maps name them by the guest's interface; an
interface of this node without chains is closed. While a frame is checked, its mark is the number of the guest that its
sender's address belongs to. Then it is the mark of its project, which others that see the packet know it by.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import astuple, dataclass, replace

from node_daemon.hypervisor.guest_network import GuestNetwork
from node_daemon.hypervisor.host_names import GUEST, GUEST_MASK, HostNames
from node_daemon.hypervisor.hypervisor import Unreachable
from node_daemon.network.chains import Dropped
from node_daemon.network.programs import output, refused, run
from runtime import logs

log = logs.get(__name__)

#: The number of addresses whose guests are known.
ADDRESSES = 65535
#: The place of frames that were dropped, as auditors see it.
PLACE = "nftables bridge"
#: Number of tries to change a table that the kernel changes too.
TRIES = 3

_LEARNED = re.compile(r"(?:map owners|set dropped|set denied) \{.*?\n\t\}", re.DOTALL)
_OWNER = re.compile(r"(\d+\.\d+\.\d+\.\d+) : (0x[0-9a-f]+)")
_COUNT = re.compile(r'"?(nbl\w+|[0-9a-f:]{17})"? counter packets (\d+)')
_CHAIN = re.compile(r"chain (?:sends|gets)-(nbl\w+) \{")
_GUEST = re.compile(
    r"chain sends-(nbl\w+) \{[^}]*?\tether saddr != ([0-9a-f:]{17}) jump refuse\n"
    r"[^}]*?\tmeta mark (0x[0-9a-f]+) meta mark set (0x[0-9a-f]+) accept\n"
)
_ELEMENTS = re.compile(r"elements = \{([^}]*)\}")


@dataclass(frozen=True)
class Chains:
    """What the chains of a guest depend on. `number`: no other guest has it. `mark`: of its project's packets."""

    mac: str
    number: int
    mark: int


class GuestTable:
    """`describe`: the network as it is now; raises Unreachable, Refused. `dropped`: counts what is dropped."""

    def __init__(self, names: HostNames, describe: Callable[[], Awaitable[GuestNetwork]], dropped: Dropped) -> None:
        self._names = names
        self._describe = describe
        self._dropped = dropped
        self._table = name_of(names)
        #: by interface
        self._guests: dict[str, Chains] = {}
        self._last = 0
        self._owners: Mapping[str, int] = {}
        #: the network and the rules that were made, and the table as it was listed then; None if guests came since
        self._network: GuestNetwork | None = None
        self._made: list[str] = []
        self._listed: str | None = None

    @property
    def marks(self) -> set[int]:
        """The marks of guests that run or start."""
        return {each.mark for each in self._guests.values()}

    async def admit(self, vm: str, mac: str, project: int) -> None:
        """Let a guest that starts now use the network. `project`: the number of its project. Raises Refused."""
        tap = self._names.tap(vm)
        if self._network is None:
            await self.check()
        self._note(tap, mac, project)
        self._listed = None
        if self._network is None or not await self._load(self._guest(tap, self._network)):
            self._warn()
            await self.check()

    async def keep(self, guests: Mapping[str, tuple[str, int]], starting: Collection[str] = ()) -> None:
        """Keep the chains of running guests, and of those that start. Raises Refused.

        `guests`: the MAC address and the number of the project of each VM.
        """
        if self._network is None:
            await self.check()
        before = dict(self._guests)
        wanted = {self._names.tap(vm): guest for vm, guest in guests.items()}
        for tap in before.keys() - wanted.keys() - self._names.interfaces() - {self._names.tap(vm) for vm in starting}:
            del self._guests[tap]
        for tap, guest in wanted.items():
            self._note(tap, *guest)
        if self._guests != before:
            self._listed = None
            await self.check()

    async def check(self) -> None:
        """Make the table again if it is missing or was changed. What the kernel has learned stays. Raises Refused."""
        try:
            network = await self._describe()
        except Unreachable as error:
            if self._network is None:
                raise refused(f"libvirt does not describe the network: {error}") from error
            network = self._network
        for _ in range(TRIES):
            listed = await output("nft", "list", "table", "bridge", self._table)
            self._learn(listed)
            rules, missing = self._rules(network), self._missing(network, listed)
            is_changed = self._listed is not None and (listed is None or _fixed(listed) != self._listed)
            if self._listed is not None and not is_changed and rules == self._made and not missing:
                return
            if is_changed:
                self._warn()
            if await self._load([*self._parts(), *self._leftover(listed), *rules, *missing]):
                break
        else:  # there is a table that is not like ours
            empty = (f"add table bridge {self._table}", f"delete table bridge {self._table}")
            given = (*empty, *self._parts(), *rules, *self._missing(network, None))
            await run("nft", "-f", "-", given="\n".join((*given, "")))
        self._network, self._made = network, rules
        self._listed = _fixed(await output("nft", "list", "table", "bridge", self._table) or "")

    def _warn(self) -> None:
        log.warning("the rules for the frames of guests were changed; they are made again", table=self._table)

    async def _load(self, lines: Iterable[str]) -> bool:
        """Change the table in one step. Returns whether it worked. Raises Refused if there is no `nft`."""
        return await output("nft", "-f", "-", given="\n".join((*lines, ""))) is not None

    def _note(self, tap: str, mac: str, project: int) -> None:
        known, mac = self._guests.get(tap), mac.lower()
        if known is None or known.mac != mac:
            self._last += 1
            known = Chains(mac, self._last, 0)
        self._guests[tap] = replace(known, mark=self._names.mark(project))

    def _learn(self, listed: str | None) -> None:
        """Note what the kernel knows: the owners of addresses, the frames that it dropped, and earlier numbers."""
        if listed is None:
            return
        learned = "".join(_LEARNED.findall(listed))
        self._owners = {match[1]: int(match[2], 16) for match in _OWNER.finditer(learned)}
        if self._network is None:  # guests of an earlier process
            for match in _GUEST.finditer(listed):
                self._guests.setdefault(match[1], Chains(match[2], int(match[3], 16), int(match[4], 16)))
        self._last = max(self._last, 0, *self._owners.values(), *(each.number for each in self._guests.values()))
        packets: Counter[str] = Counter()
        for match in _COUNT.finditer(learned):
            packets[self._guests[match[1]].mac if match[1] in self._guests else match[1]] += int(match[2])
        self._dropped.count(PLACE, packets)

    def _missing(self, network: GuestNetwork, listed: str | None) -> list[str]:
        """Elements for addresses that guests have and the kernel does not know: somebody has removed the table."""
        numbers = {each.mac: each.number for each in self._guests.values()}
        known = {} if listed is None else {ip: n for ip, n in self._owners.items() if n in numbers.values()}
        wanted = {ip: numbers[mac] for ip, mac in network.leases.items() if mac in numbers}
        if listed is None:
            wanted = {ip: n for ip, n in self._owners.items() if n in numbers.values()} | wanted
        missing = [ip for ip in wanted if ip not in known]
        old = [ip for ip in missing if listed is not None and ip in self._owners]  # of guests that have ended
        return [
            *(f"delete element bridge {self._table} owners {{ {ip} }}" for ip in old),
            *(f"add element bridge {self._table} owners {{ {ip} : {wanted[ip]} }}" for ip in missing),
        ]

    def _leftover(self, listed: str | None) -> list[str]:
        """Remove all rules, and the chains of guests that have ended. Addresses and counters stay."""
        lines = [f"flush table bridge {self._table}"]
        lines += [f"flush map bridge {self._table} {name}" for name in ("sending", "getting")]
        ended = {match[1] for match in _CHAIN.finditer(listed or "")} - self._guests.keys()
        return lines + [
            f"delete chain bridge {self._table} {side}-{tap}" for tap in ended for side in ("sends", "gets")
        ]

    def _parts(self) -> list[str]:
        """What the table consists of, without rules."""
        hooks = {"from": "prerouting priority -310", "to": "postrouting priority 310"}
        return [
            f"add table bridge {self._table}",
            f"add map bridge {self._table} owners {{ type ipv4_addr : mark; flags dynamic; size {ADDRESSES}; }}",
            f"add set bridge {self._table} dropped {{ type ifname; flags dynamic; size {ADDRESSES}; counter; }}",
            f"add set bridge {self._table} denied {{ type ether_addr; flags dynamic; size {ADDRESSES}; counter; }}",
            *(f"add map bridge {self._table} {name} {{ type ifname : verdict; }}" for name in ("sending", "getting")),
            *(f"add chain bridge {self._table} {name}" for name in ("refuse", "deny", "pass")),
            *(f"add chain bridge {self._table} {name} {{ type filter hook {hooks[name]}; }}" for name in hooks),
        ]

    def _rules(self, network: GuestNetwork) -> list[str]:
        """The rules of all guests."""
        ours = f'"{self._names.taps}*"'
        others = [f"ether type ip udp sport 67 ip saddr != {_any_of(network.dhcp_servers)} drop"]
        return [
            *self._in("refuse", "update @dropped { iifname }", "drop"),
            *self._in("deny", "update @denied { ether saddr }", "drop"),
            *self._in("pass", *(others if network.dhcp_servers else ())),
            *self._in("pass", f"ether type {_any_of(('ip', 'arp', *(('ip6',) if network.has_ipv6 else ())))} accept"),
            *self._in("pass", "drop"),
            *self._in("from", f"iifname {ours} iifname vmap @sending", f"iifname {ours} drop"),
            *self._in("to", f"oifname {ours} oifname vmap @getting", f"oifname {ours} drop"),
            *(line for tap in sorted(self._guests) for line in self._guest(tap, network)),
        ]

    def _guest(self, tap: str, network: GuestNetwork) -> list[str]:
        """The chains of one guest."""
        mac, number, mark = astuple(self._guests[tap])
        client = f"@th,288,48 0x{mac.replace(':', '')}"  # the MAC address that a DHCP message is about
        server = f"ip saddr {_any_of(network.dhcp_servers)} " if network.dhcp_servers else ""
        given = "@th,192,32"  # the address that a DHCP message gives
        owner = f"@owners {{ {given} : {number} }}"
        accept = f"meta mark set {mark} accept"
        ipv6 = (
            "ether type ip6 icmpv6 type { 134, 137 } jump refuse",
            "ether type ip6 udp sport 547 jump refuse",
            f"ether type ip6 {accept}",
        )
        sends = (
            "meta mark set 0",
            f"ether saddr != {mac} jump refuse",
            f"ether type ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 {client} {accept}",
            "ether type ip udp sport 67 jump refuse",
            "ether type arp arp hlen != 6 jump refuse",
            "ether type arp arp plen != 4 jump refuse",
            f"ether type arp arp saddr ether != {mac} jump refuse",
            f"ether type arp arp saddr ip 0.0.0.0 {accept}",
            "ether type ip meta mark set ip saddr map @owners",
            "ether type arp meta mark set arp saddr ip map @owners",
            f"meta mark {number} {accept}",
            "ether type { ip, arp } jump refuse",
            "meta mark set 0",
            *(ipv6 if network.has_ipv6 else ()),
            "drop",
        )
        foreign = f"meta mark & {GUEST_MASK} == {GUEST} meta mark != {mark} jump deny"
        answer = f"ether type ip {server}udp sport 67 udp dport 68 @th,64,8 2 {given} != 0 {client}"
        gets = (foreign, f"{answer} delete {owner} update {owner}", "jump pass")
        return [
            *(f"add chain bridge {self._table} {side}-{tap}" for side in ("sends", "gets")),
            *(f"flush chain bridge {self._table} {side}-{tap}" for side in ("sends", "gets")),
            *self._in(f"sends-{tap}", *sends),
            *self._in(f"gets-{tap}", *gets),
            f'add element bridge {self._table} sending {{ "{tap}" : jump sends-{tap} }}',
            f'add element bridge {self._table} getting {{ "{tap}" : jump gets-{tap} }}',
        ]

    def _in(self, chain: str, *rules: str) -> list[str]:
        return [f"add rule bridge {self._table} {chain} {rule}" for rule in rules]


def name_of(names: HostNames) -> str:
    """The name of a node's table."""
    return f"nebula-{names.word}"


async def remove(names: HostNames) -> None:
    """Remove the table of a node, if there is one. Raises Refused."""
    await output("nft", "delete", "table", "bridge", name_of(names))


def _any_of(values: Iterable[str]) -> str:
    return f"{{ {', '.join(values)} }}"


def _fixed(listed: str) -> str:
    """A listed table without what the kernel learns, and with elements in order."""
    return _ELEMENTS.sub(lambda found: ",".join(sorted(found[1].split(","))), _LEARNED.sub("", listed))
