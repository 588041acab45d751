"""The rules of ebtables: each packet of a guest gets the mark of its project, and reaches no guest of another one."""

import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from node_daemon.hypervisor.host_names import GUEST, GUEST_MASK, PROJECT_MASK, HostNames
from node_daemon.network.chains import Dropped, put_first
from node_daemon.network.programs import output, run

#: Our chains: the marks of guests, and which marks a guest gets packets with.
MARKS, GUESTS = "MARKS", "GUESTS"
CHAINS = (("nat", MARKS), ("filter", GUESTS))
#: Tables and chains that jump to ours, with the side whose interface counts.
JUMPS = (
    ("nat", "PREROUTING", "-i", MARKS),
    ("filter", "FORWARD", "-o", GUESTS),
    ("filter", "OUTPUT", "-o", GUESTS),
)

_MARK = re.compile(r"-i (nbl\w+) -j mark --mark-set (0x[0-9a-f]+)")
_GUEST = re.compile(r"-o (nbl\w+) --mark (0x[0-9a-f]+)")


class BridgeRules:
    def __init__(self, names: HostNames, dropped: Dropped) -> None:
        self._names = names
        self._dropped = dropped
        self._guests: Mapping[str, int] = {}

    async def check(self) -> None:
        """Make what is missing or changed. `assign` then looks at the rules of all guests again. Raises Refused."""
        base = {
            MARKS: f"-j mark --mark-set {self._names.mark():#x} --mark-target CONTINUE",
            GUESTS: f"--mark {GUEST:#x}/{GUEST_MASK:#x} -j DROP",
        }
        for table, name in CHAINS:
            chain, rule = self._names.chain(name), base[name]
            listed = await output(*ebtables(table), "-L", chain, "--Lc")
            if listed is None:
                await run(*ebtables(table), "-N", chain, "-P", "RETURN")
            rules = [line for line in (listed or "").splitlines() if line.startswith("-")]
            self._dropped.note(f"ebtables {table}", rules)
            place = rules[:1] if name == MARKS else rules[-1:]
            if sum(rule in line for line in rules) != 1 or rule not in place[0]:
                while await output(*ebtables(table), "-D", chain, *rule.split()) is not None:
                    pass
                await run(*ebtables(table), "-I" if name == MARKS else "-A", chain, *rule.split())
        for table, chain, side, target in JUMPS:
            lines = (await output(*ebtables(table), "-L", chain) or "").splitlines()
            await put_first(lines, ebtables(table), chain, _jump(self._names, side, target))
        self._guests = {}

    async def assign(self, guests: Mapping[str, int]) -> None:
        """The rules of each guest's interface: its mark, and that it gets packets with this mark. Raises Refused.

        `guests`: the number of the project of each interface. All old rules are deleted before the first new one is
        made, so a number never stands for two projects.
        """
        if guests == self._guests:
            return
        wanted = set(guests.items())
        found: dict[str, set[tuple[str, int]]] = {}
        for (table, name), pattern in zip(CHAINS, (_MARK, _GUEST), strict=True):
            chain = self._names.chain(name)
            listed = await output(*ebtables(table), "-L", chain) or ""
            found[table] = {(match[1], int(match[2], 16) & PROJECT_MASK) for match in pattern.finditer(listed)}
            for tap, number in found[table] - wanted:
                await run(*ebtables(table), "-D", chain, *self._rule(table, tap, number))
        for (table, name), how in zip(CHAINS, ("-A", "-I"), strict=True):
            for tap, number in wanted - found[table]:
                await run(*ebtables(table), how, self._names.chain(name), *self._rule(table, tap, number))
        await protect_bridges(guests)
        self._guests = dict(guests)

    def _rule(self, table: str, tap: str, number: int) -> tuple[str, ...]:
        mark = f"{self._names.mark(number):#x}"
        if table == "nat":
            return ("-i", tap, "-j", "mark", "--mark-set", mark, "--mark-target", "CONTINUE")
        return ("-o", tap, "--mark", mark, "-j", "RETURN")


async def protect_bridges(taps: Iterable[str]) -> None:
    """Let the bridges of these interfaces not learn from frames that no rule sees. Raises Refused."""
    bridges = set()
    for tap in taps:
        with contextlib.suppress(OSError):  # it has ended
            bridges.add(Path("/sys/class/net", tap, "master").readlink().name)
    for bridge in sorted(bridges):
        await run("ip", "link", "set", "dev", bridge, "type", "bridge", "no_linklocal_learn", "1")


async def remove(names: HostNames) -> None:
    """Remove the chains of a node. Raises Refused."""
    for table, chain, side, target in JUMPS:
        while await output(*ebtables(table), "-D", chain, *_jump(names, side, target)) is not None:
            pass
    for table, name in CHAINS:
        if await output(*ebtables(table), "-F", names.chain(name)) is not None:
            await run(*ebtables(table), "-X", names.chain(name))


def ebtables(table: str) -> tuple[str, ...]:
    return ("ebtables", "--concurrent", "-t", table)


def _jump(names: HostNames, side: str, target: str) -> tuple[str, ...]:
    return (side, f"{names.taps}+", "-j", names.chain(target))
