"""What the rules of iptables and ebtables have in common: jumps come first, and dropped packets are counted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from node_daemon.network.programs import output, run
from runtime import logs

log = logs.get(__name__)

_OURS = re.compile(r"-j NEBULA-\w{4}-[A-Z]+")
_DROPPED = re.compile(r"-c (\d+) \d+ -j DROP|-j DROP\s*, pcnt = (\d+)")


@dataclass
class Dropped:
    """The numbers of packets that rules have dropped, by place. More of them are logged."""

    _packets: dict[str, int] = field(default_factory=dict)

    def note(self, place: str, lines: Sequence[str]) -> None:
        """`lines`: the rules of the place, with their counters."""
        packets = sum(int(match[1] or match[2]) for line in lines if (match := _DROPPED.search(line)))
        more = packets - self._packets.get(place, packets)
        self._packets[place] = packets
        if more > 0:
            log.warning("packets of guests to what they must not reach were dropped", place=place, packets=more)

    def restart(self, place: str) -> None:
        """The counters of a place are 0 again."""
        self._packets[place] = 0


async def put_first(listed: Sequence[str], command: Sequence[str], chain: str, jump: Sequence[str]) -> None:
    """Make a jump once, before all rules but jumps of Nebula's nodes. `command`: the program and its options.

    `listed`: the rules of the chain. The jump ends with `-j` and its target. Raises Refused.
    """
    if leads(listed, " ".join(jump[-2:])):
        return
    while await output(*command, "-D", chain, *jump) is not None:
        pass
    await run(*command, "-I", chain, *jump)


def leads(lines: Sequence[str], jump: str) -> bool:
    """Whether a chain has this jump once, with nothing before it but jumps of Nebula's nodes."""
    rules = [line for line in lines if line and not line.startswith(("-P", "-N", "Bridge"))]
    places = [place for place, line in enumerate(rules) if line.rstrip().endswith(jump)]
    return len(places) == 1 and all(_OURS.search(line) for line in rules[: places[0]])
