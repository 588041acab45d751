"""The firewall of the host against its guests: nftables and iptables, in a table and in chains of our own.

- No guest can use the addresses of another one (`guest_table.py`).
- Packets of our guests carry a mark, which is set by the name of the interface that they come from. Other interfaces,
  rules and chains are not touched.
- A guest reaches nothing of the host but DHCP, DNS and the data source; and the host's own connections to it go on.
- A guest reaches guests of its project on this host, and of no other project: not over the bridge, and not by way of
  the host. The mark names the project. Guests of other nodes on the same host count as other projects.
- It reaches neither the bus by way of the host, nor the addresses at which clouds tell a host its secrets.
- The kernel takes frames to 01:80:c2:00:00:0x from the port of a bridge itself, before any rule of bridges sees them.
  Packets in them are dropped by the name of the interface. A bridge does not learn from them where a MAC address is, or
  a guest would get what is sent to another one.
- A guest asks the DHCP server for its own MAC address only, so it cannot end the lease of another one.

Rules are made before a guest starts, and made again if somebody removes them or puts others before them. What is denied
is counted and logged. The chains of a node are removed with its daemon, unless guests run. Chains of a node whose data
folder does not exist are removed by the next daemon that starts a guest.
"""

import asyncio
import contextlib
import socket
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Protocol
from urllib.parse import urlsplit

from node_daemon.hypervisor.guest_network import GuestNetwork
from node_daemon.hypervisor.host_names import PROJECT_MASK, HostNames
from node_daemon.hypervisor.hypervisor import Refused
from node_daemon.network import bridges, guest_table, ip_rules
from node_daemon.network.chains import Dropped
from node_daemon.network.guest_table import GuestTable
from node_daemon.network.ip_rules import IpRules, Place
from node_daemon.network.programs import refused
from runtime import logs

log = logs.get(__name__)

#: Seconds between two checks that the rules are there.
CHECK_SECONDS = 30.0


class Firewall(Protocol):
    """What protects a host from its guests."""

    def starting(self, vm: str, mac: str, project: str, seed_url: str) -> AbstractAsyncContextManager[None]:
        """Make the rules for a guest that starts in the block, and open its way to its data source. Raises Refused."""
        ...

    async def keep(self, guests: Mapping[str, str], seed_urls: Iterable[str], macs: Mapping[str, str]) -> None:
        """Keep the rules for these running guests: the project and the MAC address of each VM. Raises Refused."""
        ...

    async def close(self) -> None:
        """Remove the rules, unless guests run."""
        ...


class NoFirewall:
    """Implements `Firewall` for guests without interfaces, and for operators who want none."""

    def starting(self, vm: str, mac: str, project: str, seed_url: str) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def keep(self, guests: Mapping[str, str], seed_urls: Iterable[str], macs: Mapping[str, str]) -> None:
        pass

    async def close(self) -> None:
        pass


class HostFirewall:
    """Implements `Firewall`.

    `network`: describes the network of guests as it is now; raises Unreachable, Refused. `closed`: addresses and TCP
    ports elsewhere that guests must not reach. `dropped`: gets the place where packets were dropped, the VM that sent
    them (None if the rule does not know), and their number.
    """

    def __init__(
        self,
        names: HostNames,
        network: Callable[[], Awaitable[GuestNetwork]],
        closed: Iterable[Place] = (),
        dropped: Callable[[str, str | None, int], None] | None = None,
    ) -> None:
        self._names = names
        self._dropped = dropped
        counts = Dropped(self._tell)
        self._guest_table = GuestTable(names, network, counts)
        self._ip_rules = IpRules(names, closed, counts)
        #: the MAC addresses of running VMs, and VMs by address; ended ones until their last packets are counted
        self._macs: set[str] = set()
        self._vms: dict[str, str] = {}
        #: the data sources, by name and by address
        self._sources: set[Place] = set()
        self._seeds: set[Place] = set()
        self._looked_up: dict[Place, float] = {}
        self._projects: dict[str, int] = {}
        self._is_made = False
        #: whether the rules of iptables have these data sources and MAC addresses; and the time of the last full check
        self._is_current = False
        self._checked = -CHECK_SECONDS
        self._turn = asyncio.Lock()
        #: interfaces whose bridges are protected
        self._protected: set[str] = set()
        #: VMs whose start has no known outcome
        self._starting: set[str] = set()

    @asynccontextmanager
    async def starting(self, vm: str, mac: str, project: str, seed_url: str) -> AsyncIterator[None]:
        """Make the rules for a guest that starts in the block, and open its way to its data source. Raises Refused.

        If the block ends with another error than Refused, the guest may still start, so its rules stay.
        """
        async with self._turn:
            await self._open(seed_url)
            if not self._is_current:
                await self._check()
            self._projects = numbers((*self._projects, project), self._projects, self._guest_table.projects())
            await self._guest_table.admit(vm, mac, self._projects[project])
            self._starting.add(vm)
        try:
            yield
        except Refused:
            self._starting.discard(vm)
            raise
        self._starting.discard(vm)

    async def keep(self, guests: Mapping[str, str], seed_urls: Iterable[str], macs: Mapping[str, str]) -> None:
        """Keep the rules for these running guests: the project and the MAC address of each VM. Raises Refused."""
        async with self._turn:
            unknown = None
            vms = {mac.lower(): vm for vm, mac in macs.items()}
            if vms.keys() != self._macs:
                self._macs, self._is_current = set(vms), False
            self._vms |= vms
            for url in seed_urls:
                try:
                    await self._open(url, CHECK_SECONDS)
                except Refused as error:  # the rules of the other guests are kept
                    unknown = error
            if guests or self._is_made:
                is_due = time.monotonic() - self._checked >= CHECK_SECONDS
                if is_due or not self._is_current:
                    await self._check()
                if is_due:
                    await self._guest_table.check()
                    self._checked = time.monotonic()
                found = numbers(
                    (*self._projects, *guests.values()), self._projects, self._guest_table.projects(besides=guests)
                )
                known = {vm: (macs[vm], found[project]) for vm, project in guests.items() if vm in macs}
                await self._guest_table.keep(known, self._starting)
                used = self._guest_table.projects()
                self._projects = {project: number for project, number in found.items() if number in used}
                taps = self._names.interfaces()
                if taps != self._protected:
                    await bridges.protect(taps)
                    self._protected = taps
            if unknown is not None:
                raise unknown

    async def close(self) -> None:
        """Remove the rules, unless guests run."""
        async with self._turn:
            await self._guest_table.close()
            if self._starting or self._names.interfaces():
                return
            try:
                if self._is_made or await ip_rules.exist(self._names):
                    await remove(self._names)
            except Refused as error:
                if self._is_made:
                    log.warning("the rules of the host's firewall are not removed", error=str(error))

    async def _open(self, seed_url: str, pause: float = 0.0) -> None:
        """Accept connections to the data source at this URL. Raises Refused if its address cannot be found.

        `pause`: seconds after a lookup of the same name in which it is not looked up again.
        """
        try:
            parts = urlsplit(seed_url)
            source = (parts.hostname or "", parts.port or 80)
            if source in self._sources or time.monotonic() - self._looked_up.get(source, -pause) < pause:
                return
            self._looked_up[source] = time.monotonic()
            found = await asyncio.to_thread(addresses, *source)
        except (OSError, ValueError) as error:
            raise refused(f"the address of the data source cannot be found: {error}") from error
        self._sources.add(source)
        if not found <= self._seeds:
            self._seeds |= found
            self._is_current = False

    async def _check(self) -> None:
        if not self._is_made:
            for names in await ip_rules.leftovers():
                log.info("the chains of a node that does not exist any more are removed", folder=str(names.folder))
                await remove(names)
            await self._guest_table.check()  # it knows which numbers the projects of running guests have
        self._is_made = True
        await self._ip_rules.check(self._seeds, self._macs)
        self._vms = {mac: vm for mac, vm in self._vms.items() if mac in self._macs}
        self._is_current = True

    def _tell(self, place: str, mac: str, packets: int) -> None:
        if self._dropped is not None:
            self._dropped(place, self._vms.get(mac), packets)


def numbers(projects: Iterable[str], known: Mapping[str, int], used: Collection[int] = ()) -> dict[str, int]:
    """A number from 1 for each of these projects: the known one, or the first free one from one that its id gives.

    `used`: numbers of guests whose projects may be others. Raises Refused if there are more projects than numbers.
    """
    wanted = sorted(set(projects))
    found = {project: known[project] for project in wanted if project in known}
    taken = {*found.values(), *used}
    if len(taken) + len(wanted) - len(found) > PROJECT_MASK:
        raise refused(f"there are guests of more than {PROJECT_MASK} projects")
    for project in wanted:
        if project not in found:
            number = zlib.crc32(project.encode()) % PROJECT_MASK + 1
            while number in taken:
                number = number % PROJECT_MASK + 1
            found[project] = number
            taken.add(number)
    return found


async def remove(names: HostNames) -> None:
    """Remove all rules of a node. Raises Refused."""
    await guest_table.remove(names)
    await ip_rules.remove(names)


def bus_addresses(urls: str) -> list[Place]:
    """The addresses and ports of the bus's servers. A name that cannot be resolved now is left out."""
    found: set[Place] = set()
    for url in urls.split(","):
        with contextlib.suppress(OSError, ValueError):
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            found |= addresses(parts.hostname or "", parts.port or 4222)
    return sorted(found)


def addresses(host: str, port: int) -> set[Place]:
    """The addresses of a host, each with the port. Raises OSError. Blocks for names."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return {(str(place[0]).partition("%")[0], int(place[1])) for *_, place in found}
