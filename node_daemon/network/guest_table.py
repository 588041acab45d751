"""The table of nftables for the frames of guests: none uses the addresses of another one, or reaches other projects.

- A guest sends with its own MAC address, from IPv4 addresses that the DHCP server of the network gave it. The kernel
  learns them from the server's answers: an address belongs to the guest that it was given to last. If it was given to
  somebody else, such as a guest of another node, it belongs to no guest of this node any more.
- A guest cannot be a DHCP server. It sends and gets nothing but IPv4 and ARP; on a network with IPv6 also IPv6, but no
  router advertisements, no redirects and no answers of a DHCP server.
- A guest gets nothing from guests of other projects on this host, neither over the bridge nor by way of the host.

The rules are in `guest_rules.py`. This module makes them, and makes them again if somebody changes them.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace

from node_daemon.hypervisor.guest_network import GuestNetwork
from node_daemon.hypervisor.host_names import PROJECT_MASK, HostNames
from node_daemon.hypervisor.hypervisor import Refused, Unreachable
from node_daemon.network import guest_rules
from node_daemon.network.chains import Dropped
from node_daemon.network.guest_rules import Chains
from node_daemon.network.nft import Nft
from node_daemon.network.programs import output, refused
from runtime import logs

log = logs.get(__name__)

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


class GuestTable:
    """`describe`: the network as it is now; raises Unreachable, Refused. `dropped`: counts what is dropped."""

    def __init__(self, names: HostNames, describe: Callable[[], Awaitable[GuestNetwork]], dropped: Dropped) -> None:
        self._names = names
        self._describe = describe
        self._dropped = dropped
        self._table = name_of(names)
        self._nft = Nft()
        #: by interface
        self._guests: dict[str, Chains] = {}
        #: of guests that have ended and still own addresses, by MAC address: a suspended guest does not ask for its own
        self._ended: dict[str, int] = {}
        self._last = 0
        self._owners: Mapping[str, int] = {}
        #: the network and the rules that were made, and the table as it was listed then; None if guests came since
        self._network: GuestNetwork | None = None
        self._made: list[str] = []
        self._listed: str | None = None

    def projects(self, besides: Iterable[str] = ()) -> set[int]:
        """The numbers of the projects of guests that run or start, without these VMs."""
        without = {self._names.tap(vm) for vm in besides}
        return {each.mark & PROJECT_MASK for tap, each in self._guests.items() if tap not in without}

    async def admit(self, vm: str, mac: str, project: int) -> None:
        """Let a guest that starts now use the network. `project`: the number of its project. Raises Refused."""
        tap = self._names.tap(vm)
        if self._network is None:
            await self.check()
        self._note(tap, mac, project)
        self._listed = None
        if (network := self._network) is not None:
            own = guest_rules.of_guest(self._table, tap, self._guests[tap], network)
            if await self._load([*own, guest_rules.here(self._table, self._guests[tap].mac)]):
                return
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
            ended = self._guests.pop(tap)
            self._ended[ended.mac] = ended.number
        for tap, guest in wanted.items():
            self._note(tap, *guest)
        if self._guests != before:
            self._listed = None
            await self.check()

    async def check(self) -> None:
        """Make the table again if it is missing or was changed. What the kernel has learned stays. Raises Refused."""
        try:
            network = await self._describe()
        except (Unreachable, Refused) as error:
            if self._network is None:
                raise refused(f"libvirt does not describe the network: {error}") from error
            network = self._network
        for _ in range(TRIES):
            listed = await self._nft.output(f"list table bridge {self._table}")
            self._learn(listed)
            rules = guest_rules.of_all(self._table, self._names.taps, self._guests, network)
            missing = self._missing(network, listed)
            is_changed = self._listed is not None and (listed is None or _fixed(listed) != self._listed)
            if self._listed is not None and not is_changed and rules == self._made and not missing:
                return
            if is_changed:
                self._warn()
            if await self._load([*guest_rules.parts(self._table), *self._leftover(listed), *rules, *missing]):
                break
        else:  # there is a table that is not like ours
            empty = (f"add table bridge {self._table}", f"delete table bridge {self._table}")
            given = (*empty, *guest_rules.parts(self._table), *rules, *self._missing(network, None))
            await self._nft.run("\n".join((*given, "")))
        self._network, self._made = network, rules
        self._listed = _fixed(await self._nft.output(f"list table bridge {self._table}") or "")

    async def close(self) -> None:
        """End what makes the rules. The table stays."""
        await self._nft.close()

    def _warn(self) -> None:
        log.warning("the rules for the frames of guests were changed; they are made again", table=self._table)

    async def _load(self, lines: Iterable[str]) -> bool:
        """Change the table in one step. Returns whether it worked. Raises Refused if there is no `nft`."""
        return await self._nft.output("\n".join((*lines, ""))) is not None

    def _note(self, tap: str, mac: str, project: int) -> None:
        known, mac = self._guests.get(tap), mac.lower()
        if known is None or known.mac != mac:
            number = self._ended.pop(mac, None)
            if number is None:
                self._last = number = self._last + 1
            known = Chains(mac, number, 0)
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
        owners = set(self._owners.values())
        self._ended = {mac: number for mac, number in self._ended.items() if number in owners}
        packets: Counter[str] = Counter()
        for match in _COUNT.finditer(learned):
            packets[self._guests[match[1]].mac if match[1] in self._guests else match[1]] += int(match[2])
        self._dropped.count(PLACE, packets)

    def _missing(self, network: GuestNetwork, listed: str | None) -> list[str]:
        """Changes of owners that the kernel did not see: the table was removed, or an answer was missed."""
        numbers = {each.mac: each.number for each in self._guests.values()}
        elsewhere = {ip for ip, mac in network.leases.items() if mac not in numbers and mac not in self._ended}
        wanted = {ip: numbers[mac] for ip, mac in network.leases.items() if mac in numbers}
        if listed is None:
            kept = {*numbers.values(), *self._ended.values()}
            wanted = {ip: n for ip, n in self._owners.items() if n in kept and ip not in elsewhere} | wanted
            missing, old = list(wanted), []
        else:
            missing = [ip for ip in wanted if self._owners.get(ip) not in numbers.values()]
            old = [ip for ip in self._owners if ip in missing or ip in elsewhere]
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


def name_of(names: HostNames) -> str:
    """The name of a node's table."""
    return f"nebula-{names.word}"


async def remove(names: HostNames) -> None:
    """Remove the table of a node, if there is one. Raises Refused."""
    await output("nft", "delete", "table", "bridge", name_of(names))


def _fixed(listed: str) -> str:
    """A listed table without what the kernel learns, and with elements in order."""
    return _ELEMENTS.sub(lambda found: ",".join(sorted(found[1].split(","))), _LEARNED.sub("", listed))
