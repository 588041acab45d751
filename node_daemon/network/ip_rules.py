"""The rules of iptables and ip6tables: what marked packets reach of the host, and what they do not reach elsewhere.

What a guest reaches of the host is decided twice. Packets to addresses of the host are judged before others translate
their addresses or change their marks, as programs for containers do. What is left, such as multicast, is judged last.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from node_daemon.hypervisor.host_names import NODE_MASK, HostNames, leftover
from node_daemon.network.chains import Dropped, put_first
from node_daemon.network.programs import output, run
from runtime import logs

log = logs.get(__name__)

#: An address and a TCP port.
Place = tuple[str, int]

#: Our chains: what guests reach of the host, what they do not reach elsewhere, what no rule of bridges has seen.
HOST, ROUTED, UNSEEN = "HOST", "ROUTED", "UNSEEN"
CHAINS = (("filter", HOST), ("filter", ROUTED), ("filter", UNSEEN), ("mangle", HOST))
#: Tables and chains that jump to ours, and which packets.
JUMPS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("filter", "INPUT", HOST, ()),
    ("filter", "FORWARD", ROUTED, ()),
    ("filter", "INPUT", UNSEEN, ()),
    ("mangle", "PREROUTING", HOST, ("-m", "addrtype", "--dst-type", "LOCAL")),
)

_COUNTS = re.compile(r"^\[\d+:\d+\] ")
_REMARK = re.compile(r'--comment "?(nebula:[^\s"]+)"? -j NEBULA-')

#: A classic BPF program: the MAC address of the client in a DHCP message (chaddr) is the source of its frame, and
#: nothing but an Ethernet address of 6 bytes. With another type or length, a server would see another client.
OWN_MAC = ",".join(
    (
        "15",
        "177 0 0 0",  # X = length of the IP header
        "72 0 0 9",  # type and length of the address (htype, hlen)
        "21 0 11 262",  # if they are not 1 and 6, to the end: no match
        "64 0 0 36",  # the first 4 bytes of chaddr, after 8 bytes of UDP and 28 of the message
        "2 0 0 0",
        "72 0 0 40",  # the last 2 bytes
        "2 0 0 1",
        "97 0 0 0",
        "32 0 0 4292870150",  # the source in the header of the frame (SKF_LL_OFF + 6)
        "29 0 4 0",  # if it is another one, to the end: no match
        "97 0 0 1",
        "40 0 0 4292870154",
        "29 0 1 0",
        "6 0 0 65535",
        "6 0 0 0",
    )
)
#: Where clouds tell a host its secrets. Guests are not routed there.
METADATA = ("169.254.0.0/16", "fd00:ec2::254/128", "fd20:ce::254/128")
#: Neighbour discovery, which IPv6 needs; DHCP has other ports.
_V4 = (f'-p udp --dport 67 -m bpf --bytecode "{OWN_MAC}" -j ACCEPT',)
_V6 = (*(f"-p icmpv6 --icmpv6-type {kind} -j ACCEPT" for kind in (133, 135, 136)), "-p udp --dport 547 -j ACCEPT")


class IpRules:
    """`closed`: what guests must not reach on other hosts."""

    def __init__(self, names: HostNames, closed: Iterable[Place], dropped: Dropped) -> None:
        self._names = names
        self._closed = tuple(closed)
        self._dropped = dropped
        #: of each program: the rules that were made, and how it lists them
        self._made: dict[str, tuple[list[str], list[str]]] = {}

    async def check(self, seeds: Iterable[Place], macs: Iterable[str] = ()) -> None:
        """Make what is missing or changed. Raises Refused.

        `seeds`: the data sources, which guests reach. `macs`: the addresses of guests, whose packets are counted apart.
        """
        for program in programs():
            await self._check(program, sorted(seeds), sorted(macs))

    async def _check(self, program: str, seeds: list[Place], macs: list[str]) -> None:
        """The chains are replaced in one step if they differ from what was made."""
        saved = await self._saved(program)
        found = self._ours(saved)
        self._dropped.note(program, found)
        rules = self._rules(4 if program == "iptables" else 6, seeds, macs)
        wanted, known = self._made.get(program, ([], []))
        is_changed = without_counts(found) != known
        if is_changed or rules != wanted:
            if is_changed and known:
                log.warning("the rules of the host's firewall were changed; they are made again", program=program)
            await run(f"{program}-restore", "--wait", "--noflush", given="\n".join(rules))
            saved = await self._saved(program)
            self._made[program] = rules, without_counts(self._ours(saved))
            self._dropped.restart(program)
        mark = ("-m", "mark", "--mark", f"{self._names.mark():#x}/{NODE_MASK:#x}")
        remark = ("-m", "comment", "--comment", self._names.remark) if self._names.remark else ()
        for table, chain, target, match in JUMPS:
            packets = ("-i", f"{self._names.taps}+") if target == UNSEEN else (*mark, *match)
            jump = (*packets, *remark, "-j", self._names.chain(target))
            lines = [line for line in without_counts(saved[table]) if line.startswith(f"-A {chain} ")]
            await put_first(lines, (program, "--wait", "-t", table), chain, jump)

    def _rules(self, version: int, seeds: list[Place], macs: list[str]) -> list[str]:
        host, routed, unseen = (self._names.chain(name) for name in (HOST, ROUTED, UNSEEN))
        allowed = [
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            *(_V4 if version == 4 else _V6),
            *(f"-p {protocol} --dport 53 -j ACCEPT" for protocol in ("udp", "tcp")),
            *(f"-p tcp -d {each} --dport {port} -j ACCEPT" for each, port in seeds if is_of(each, version)),
            '-m limit --limit 6/min -j LOG --log-prefix "nebula: guest denied: "',
            *(f"-m mac --mac-source {mac} -j DROP" for mac in macs),
            "-j DROP",
        ]
        closed = [
            *(f"-d {each} -j DROP" for each in METADATA if is_of(each, version)),
            *(f"-p tcp -d {each} --dport {port} -j DROP" for each, port in self._closed if is_of(each, version)),
        ]
        return [
            *("*filter", f":{host} - [0:0]", f":{routed} - [0:0]", f":{unseen} - [0:0]"),
            *(f"-A {host} {rule}" for rule in allowed),
            *(f"-A {routed} {rule}" for rule in closed),
            f"-A {unseen} -j DROP",
            *("COMMIT", "*mangle", f":{host} - [0:0]"),
            *(f"-A {host} {rule}".replace("-j ACCEPT", "-j RETURN") for rule in allowed),
            *("COMMIT", ""),
        ]

    async def _saved(self, program: str) -> dict[str, list[str]]:
        """The rules of each table, with their counters."""
        tables = sorted({table for table, _ in CHAINS})
        return {table: (await output(f"{program}-save", "-c", "-t", table) or "").splitlines() for table in tables}

    def _ours(self, saved: Mapping[str, list[str]]) -> list[str]:
        """The rules of our chains, and the chains that exist."""
        places = {(table, self._names.chain(name)) for table, name in CHAINS}
        words = ((table, line, line.split(" ", 3)) for table, lines in saved.items() for line in lines)
        return [
            line
            for table, line, found in words
            if (table, found[0].removeprefix(":")) in places or (found[1:2] == ["-A"] and (table, found[2]) in places)
        ]


def without_counts(lines: Iterable[str]) -> list[str]:
    """Saved rules without the numbers of their packets and bytes."""
    return [_COUNTS.sub("", line) for line in lines]


async def exist(names: HostNames) -> bool:
    """Whether a node has chains. Raises Refused."""
    return await output("iptables", "--wait", "-S", names.chain(HOST)) is not None


async def leftovers() -> list[HostNames]:
    """The nodes that have chains, but whose data folder does not exist, and of which no guest runs. Raises Refused."""
    remarks = {
        match[1]
        for program in programs()
        for match in _REMARK.finditer(await output(program, "--wait", "-S", "INPUT") or "")
    }
    return [names for each in sorted(remarks) if (names := leftover(each)) is not None]


async def remove(names: HostNames) -> None:
    """Remove the chains of a node. Raises Refused."""
    for program in programs():
        for table, chain, target, _ in JUMPS:
            command = (program, "--wait", "-t", table)
            for line in (await output(*command, "-S", chain) or "").splitlines():
                if line.rstrip().endswith(f"-j {names.chain(target)}"):
                    await run(*command, "-D", *shlex.split(line)[1:])
        for table, name in CHAINS:
            command = (program, "--wait", "-t", table)
            if await output(*command, "-F", names.chain(name)) is not None:
                await run(*command, "-X", names.chain(name))


def programs() -> tuple[str, ...]:
    """The programs for the versions of IP that this host has."""
    return ("iptables", "ip6tables") if Path("/proc/net/if_inet6").exists() else ("iptables",)


def is_of(address: str, version: int) -> bool:
    return (":" in address) == (version == 6)
