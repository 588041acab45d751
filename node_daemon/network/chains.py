"""Chains of iptables: jumps to ours come first. And the numbers of dropped packets."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from node_daemon.network.programs import output, run
from runtime import logs

log = logs.get(__name__)

_OURS = re.compile(r"-j NEBULA-\w{4}-[A-Z]+")
_DROPPED = re.compile(r"^\[(\d+):\d+\] .*-j DROP$")
_SENDER = re.compile(r"--mac-source ([0-9A-Fa-f:]{17})")


@dataclass
class Dropped:
    """The numbers of packets that rules have dropped, by place and sender. More of them are logged and passed on.

    `told`: gets the place, the MAC address of the sender (empty if the rule knows none), and the number of packets.
    """

    told: Callable[[str, str, int], None] = lambda *_: None
    _packets: dict[str, Mapping[str, int]] = field(default_factory=dict)

    def note(self, place: str, lines: Sequence[str]) -> None:
        """`lines`: the rules of the place, with their counters."""
        packets: Counter[str] = Counter()
        for line in lines:
            if match := _DROPPED.search(line):
                sender = _SENDER.search(line)
                packets[sender[1].lower() if sender else ""] += int(match[1])
        self.count(place, packets)

    def count(self, place: str, packets: Mapping[str, int]) -> None:
        """`packets`: those of each sender until now. What was counted before the first call is left out."""
        before = self._packets.get(place, packets)
        self._packets[place] = packets
        for sender_of, count in packets.items():
            more = count - before.get(sender_of, 0)
            if more > 0:
                log.warning(
                    "packets of guests to what they must not reach were dropped",
                    place=place,
                    mac=sender_of,
                    packets=more,
                )
                self.told(place, sender_of, more)

    def restart(self, place: str) -> None:
        """The counters of a place are 0 again."""
        self._packets[place] = {}


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
    rules = [line for line in lines if line and not line.startswith(("-P", "-N"))]
    places = [place for place, line in enumerate(rules) if line.rstrip().endswith(jump)]
    return len(places) == 1 and all(_OURS.search(line) for line in rules[: places[0]])
