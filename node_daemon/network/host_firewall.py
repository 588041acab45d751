"""The firewall of the host against its guests: iptables and ebtables, in chains of our own.

- Packets of our guests carry a mark, which is set by the name of the interface that they come from. Other interfaces,
  rules and chains are not touched.
- A guest reaches nothing of the host but DHCP, DNS and the data source; and the host's own connections to it go on.
- A guest reaches guests of its project on this host, and of no other project: not over the bridge, and not by way of
  the host. The mark names the project.
- It cannot reach the bus by way of the host either.

Rules are made before a guest starts, and made again if somebody removes them. What is denied is counted and logged.
"""

import asyncio
import contextlib
import re
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from node_daemon.hypervisor.domain_xml import TAPS, tap_name
from node_daemon.hypervisor.hypervisor import Refused
from runtime import logs

log = logs.get(__name__)

#: The mark of a guest's packet: OURS, and the number of its project.
OURS, ALL_OURS, PROJECTS = 0x4E000000, "0x4e000000/0xff000000", 0x00FFFFFF
#: Chains: what guests may reach, the data sources among it, what they may not reach elsewhere; marks and projects.
HOST, SEEDS, ROUTED, MARKS, GUESTS = "NEBULA-HOST", "NEBULA-SEEDS", "NEBULA-ROUTED", "NEBULA-MARKS", "NEBULA-GUESTS"
#: Seconds between two checks that the rules are there.
CHECK_SECONDS = 30.0
#: Seconds for one command.
COMMAND_SECONDS = 20.0

_MARK = re.compile(rf"-i ({TAPS}\w+) -j mark --mark-or (0x[0-9a-f]+)")
_PROJECT = re.compile(rf"-o ({TAPS}\w+) --mark (0x[0-9a-f]+)")
_DENIED = re.compile(r"-c (\d+) \d+ -j DROP|-j DROP\s*, pcnt = (\d+)")

#: Neighbour discovery, which IPv6 needs; DHCP has other ports.
_V4 = ("-p udp --dport 67 -j ACCEPT",)
_V6 = (*(f"-p icmpv6 --icmpv6-type {kind} -j ACCEPT" for kind in (133, 135, 136)), "-p udp --dport 547 -j ACCEPT")


class Firewall(Protocol):
    """What protects a host from its guests."""

    async def prepare(self, seed_url: str) -> None:
        """Make the rules, and open the way to the data source of a guest that will start. Raises Refused."""
        ...

    async def keep(self, guests: Mapping[str, str], seed_urls: Iterable[str]) -> None:
        """Keep the rules for these running guests: the project of each VM. Raises Refused."""
        ...


class NoFirewall:
    """Implements `Firewall` for guests without interfaces, and for operators who want none."""

    async def prepare(self, seed_url: str) -> None:
        pass

    async def keep(self, guests: Mapping[str, str], seed_urls: Iterable[str]) -> None:
        pass


class HostFirewall:
    """Implements `Firewall`. `closed`: addresses and TCP ports elsewhere that guests must not reach."""

    def __init__(self, closed: Iterable[tuple[str, int]] = ()) -> None:
        self._closed = tuple(closed)
        self._seeds: set[tuple[str, int]] = set()
        self._projects: dict[str, int] = {}
        self._checked = -CHECK_SECONDS
        self._turn = asyncio.Lock()
        self._denied: dict[str, int] = {}
        self._guests: dict[str, int] = {}
        self._known: set[str] = set()

    async def prepare(self, seed_url: str) -> None:
        """Make the rules, and open the way to the data source of a guest that will start. Raises Refused."""
        async with self._turn:
            await self._open(seed_url)
            if self._checked < 0:
                await self._check()

    async def keep(self, guests: Mapping[str, str], seed_urls: Iterable[str]) -> None:
        """Keep the rules for these running guests: the project of each VM. Raises Refused."""
        async with self._turn:
            for url in seed_urls:
                await self._open(url)
            if self._seeds:
                await self._check()
                await self._assign({tap_name(vm): self._number(project) for vm, project in guests.items()})

    async def _check(self) -> None:
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        for program, version in (("iptables", 4), ("ip6tables", 6)):
            if version == 4 or Path("/proc/net/if_inet6").exists():
                await self._check_host(program, version)
        await self._check_bridges()
        self._guests = {}
        self._checked = time.monotonic()

    async def _check_host(self, program: str, version: int) -> None:
        """The chains of one version of IP. They are replaced in one step if they differ."""
        rules = [
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            *(_V4 if version == 4 else _V6),
            *(f"-p {protocol} --dport 53 -j ACCEPT" for protocol in ("udp", "tcp")),
            f"-j {SEEDS}",
            '-m limit --limit 6/min -j LOG --log-prefix "nebula: guest denied: "',
            "-j DROP",
        ]
        routed = [
            f"-p tcp -d {each} --dport {port} -j DROP" for each, port in self._closed if _version(each) == version
        ]
        found = (await _output(program, "-v", "-S", HOST) or "").splitlines()
        elsewhere = (await _output(program, "-S", ROUTED) or "").splitlines()
        if len(found) != len(rules) + 1 or len(elsewhere) != len(routed) + 1:
            if found:
                log.warning("rules of the host's firewall were changed; they are made again", program=program)
            chains = [f"-A {HOST} {rule}" for rule in rules] + [f"-A {ROUTED} {rule}" for rule in routed]
            seeds = [] if await _output(program, "-S", SEEDS) else [f":{SEEDS} - [0:0]"]
            text = "\n".join(["*filter", f":{HOST} - [0:0]", f":{ROUTED} - [0:0]", *seeds, *chains, "COMMIT", ""])
            await _run(f"{program}-restore", "--wait", "--noflush", given=text)
        for chain, target in (("INPUT", HOST), ("FORWARD", ROUTED)):
            jump = (chain, "-m", "mark", "--mark", ALL_OURS, "-j", target)
            if await _output(program, "--wait", "-C", *jump) is None:
                await _run(program, "--wait", "-I", *jump)
        for host, port in self._seeds:
            if _version(host) == version:
                await self._accept(program, host, port)
        self._note_denied(program, found)

    async def _open(self, seed_url: str) -> None:
        """Accept connections to the data source at this URL."""
        try:
            parts = urlsplit(seed_url)
            seed = (parts.hostname or "", parts.port or 80)
        except ValueError:
            return
        if seed in self._seeds or _version(seed[0]) is None:
            return
        self._seeds.add(seed)
        self._checked = -CHECK_SECONDS

    async def _accept(self, program: str, host: str, port: int) -> None:
        rule = (SEEDS, "-d", host, "-p", "tcp", "--dport", str(port), "-j", "ACCEPT")
        if await _output(program, "--wait", "-C", *rule) is None:
            await _run(program, "--wait", "-A", *rule)

    async def _check_bridges(self) -> None:
        """The chains of bridges: a mark for each packet of a guest, and where marked packets may go."""
        base = {
            ("nat", MARKS): f"-j mark --mark-or {OURS:#x} --mark-target CONTINUE",
            ("filter", GUESTS): f"--mark {ALL_OURS} -j DROP",
        }
        for (table, chain), rule in base.items():
            listed = await _output("ebtables", "-t", table, "-L", chain, "--Lc")
            if listed is None:
                await _run("ebtables", "-t", table, "-N", chain, "-P", "RETURN")
            if rule not in (listed or ""):
                await _run("ebtables", "-t", table, "-A", chain, *rule.split())
            self._note_denied(f"ebtables {table}", (listed or "").splitlines())
        jumps = (
            ("nat", "PREROUTING", "-i", MARKS),
            ("filter", "FORWARD", "-o", GUESTS),
            ("filter", "OUTPUT", "-o", GUESTS),
        )
        for table, chain, side, target in jumps:
            jump = f"{side} {TAPS}+ -j {target}"
            if jump not in (await _output("ebtables", "-t", table, "-L", chain) or ""):
                await _run("ebtables", "-t", table, "-I", chain, *jump.split())

    async def _assign(self, guests: dict[str, int]) -> None:
        """The rules of each guest's interface: the mark of its project, and that it gets packets with this mark."""
        if guests == self._guests:
            return
        known = self._known | guests.keys()  # others belong to other node daemons of this host
        for table, chain, pattern in (("nat", MARKS, _MARK), ("filter", GUESTS, _PROJECT)):
            listed = await _output("ebtables", "-t", table, "-L", chain) or ""
            found = {(match[1], int(match[2], 16) & PROJECTS) for match in pattern.finditer(listed)}
            over = {each for each in found if each[0] in known or not Path("/sys/class/net", each[0]).exists()}
            for tap, number in over - set(guests.items()):
                await _run("ebtables", "-t", table, "-D", chain, *_rule(table, tap, number))
            for tap, number in set(guests.items()) - found:
                await _run("ebtables", "-t", table, "-A" if table == "nat" else "-I", chain, *_rule(table, tap, number))
        self._guests, self._known = guests, set(guests)

    def _number(self, project: str) -> int:
        """The number of a project on this host, while this process runs."""
        if project not in self._projects:
            self._projects[project] = (max(self._projects.values(), default=time.time_ns() & 0xFFFFFE) % PROJECTS) + 1
        return self._projects[project]

    def _note_denied(self, place: str, lines: list[str]) -> None:
        packets = sum(int(match[1] or match[2]) for line in lines if (match := _DENIED.search(line)))
        more = packets - self._denied.get(place, packets)
        self._denied[place] = packets
        if more > 0:
            log.warning("packets of guests to what they must not reach were dropped", place=place, packets=more)


def bus_addresses(urls: str) -> list[tuple[str, int]]:
    """The addresses and ports of the bus's servers. A name that cannot be resolved now is left out."""
    found: set[tuple[str, int]] = set()
    for url in urls.split(","):
        with contextlib.suppress(OSError, ValueError):
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            for *_, place in socket.getaddrinfo(parts.hostname, parts.port or 4222, type=socket.SOCK_STREAM):
                found.add((str(place[0]), int(place[1])))
    return sorted(found)


def _rule(table: str, tap: str, number: int) -> tuple[str, ...]:
    if table == "nat":
        return ("-i", tap, "-j", "mark", "--mark-or", f"{number:#x}", "--mark-target", "CONTINUE")
    return ("-o", tap, "--mark", f"{OURS | number:#x}", "-j", "RETURN")


def _version(address: str) -> int | None:
    """4 or 6; None for a name."""
    if re.fullmatch(r"[0-9.]+", address):
        return 4
    return 6 if ":" in address else None


async def _output(*argv: str) -> str | None:
    """The output of a command; None if it fails. Raises Refused if the program is missing or hangs."""
    status, out = await _execute(argv, "")
    return out if status == 0 else None


async def _run(*argv: str, given: str = "") -> None:
    """Raises Refused if the command fails."""
    status, out = await _execute(argv, given)
    if status != 0:
        raise _refused(f"{' '.join(argv)} failed: {' '.join(out.split())[-200:]}")


async def _execute(argv: tuple[str, ...], given: str) -> tuple[int, str]:
    pipe, merged = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    with tempfile.TemporaryFile() as file:  # not a pipe: a program may end before it has read its input
        file.write(given.encode())
        file.seek(0)
        try:
            process = await asyncio.create_subprocess_exec(*argv, stdin=file, stdout=pipe, stderr=merged)
        except OSError as error:
            raise _refused(f"{argv[0]} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise _refused(f"{argv[0]} does not end") from None
    return process.returncode or 0, out.decode(errors="replace")


def _refused(detail: str) -> Refused:
    what = "the firewall of this node cannot protect it from its guests"
    how = "run the node as root with iptables and ebtables installed, or set NEBULA_GUEST_FIREWALL=false"
    return Refused(f"{what}: {detail}; {how}, then start the VM", code="filter_missing")
