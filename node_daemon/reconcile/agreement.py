"""Whether the log and this node agree about the VMs here. Only if they do not, all reports are repeated.

The node asks with its heartbeats, and each handlers process answers what the log knows. The node repeats all reports
if no answer comes (handlers of an earlier version do not know the question), or if the answers differ from what it sees
for some time. Reports about VMs for which handlers await one are always repeated.
"""

import asyncio
from collections.abc import Callable, Iterable, Set

from domain.contract import KnownVms
from domain.contract.known import digest
from runtime.tasks.tasks import happens

#: Number of questions before all reports are repeated, and seconds between two: a report may be on its way.
TRIES, AGAIN = 2, 4.0
#: Seconds after the first answer in which other handlers processes may answer too.
OTHERS = 0.5

Facts = Callable[[Set[str]], Iterable[int]]
"""The facts that the node sees, without those of some VMs."""


class Agreement:
    """`seconds`: how long to wait for an answer; a heartbeat is sent in that time. `asks`: whether the next heartbeat
    has to ask.
    """

    def __init__(self, seconds: float) -> None:
        self.asks = False
        self._seconds = seconds
        self._answers: list[KnownVms] = []
        self._answered = asyncio.Event()

    def take(self, known: KnownVms) -> None:
        """Take in the answer of one handlers process."""
        if self.asks:
            self._answers.append(known)
            self._answered.set()

    async def to_repeat(self, facts: Facts) -> frozenset[str] | None:
        """The VMs whose reports have to be repeated; None: all VMs."""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(AGAIN)
            answers = await self._ask()
            if not answers:
                return None
            if all(agrees(each, facts) for each in answers):
                return frozenset(vm for each in answers for vm in each.awaited or ())
        return None

    async def _ask(self) -> list[KnownVms]:
        self._answers = []
        self._answered.clear()
        self.asks = True
        try:
            if await happens(self._answered, self._seconds):
                await asyncio.sleep(OTHERS)
        finally:
            self.asks = False
        return self._answers


def agrees(known: KnownVms, facts: Facts) -> bool:
    return known.awaited is not None and known.digest == digest(facts(frozenset(known.awaited)))
