"""How far this process knows the log without a gap, and where the newest event of some aggregates stands.

A process learns of an event in two ways: it appended the event itself, or it read the log. Both together tell, mostly
without a wait, whether there is an event of an aggregate up to a position.
"""

import asyncio
from collections.abc import Collection, Sequence

from eventstore.log.envelope import Recorded, Ref


class Frontier:
    """Everything up to `position` is known here. `kinds`: the aggregates whose newest positions are kept."""

    def __init__(self, kinds: Collection[str] = ()) -> None:
        self.position = 0
        self.awaited = 0
        """The number of tasks that wait for a position."""
        self._kinds = frozenset(kinds)
        self._newest: dict[str, int] = {}
        self._ahead: dict[int, int] = {}
        """Own events behind a gap: the position before the first, and the last."""
        self._own: dict[int, Recorded] = {}
        """Own events that did not come with the log yet."""
        self.handed_on = 0
        """The position up to which the log was handed on, own events as they are known here."""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def newest(self, ref: Ref) -> int:
        """The position of the newest known event of an aggregate (0 when there is none)."""
        return self._newest.get(ref.subject, 0)

    def stored(self, recorded: Sequence[Recorded]) -> None:
        """Take note of events that this process appended; they stand next to each other."""
        before, last = recorded[0].position - 1, recorded[-1].position
        self._note(recorded)
        self._own.update((one.position, one) for one in recorded if one.position > self.handed_on)
        if before <= self.position:
            self._move(last)
        else:
            self._ahead[before] = max(last, self._ahead.get(before, 0))

    def heard(self, recorded: Sequence[Recorded]) -> None:
        """Take note of messages that were read from the log: everything up to the last of them is known."""
        self._note(recorded)
        self._move(recorded[-1].position)

    def handed(self, recorded: Sequence[Recorded]) -> list[Recorded]:
        """The next messages of the log, handed on: those that this process appended as it knows them."""
        self.handed_on = recorded[-1].position
        return [self._recognized(one) for one in recorded]

    def _recognized(self, recorded: Recorded) -> Recorded:
        own = self._own.pop(recorded.position, None)
        return own if own is not None and own.tells_the_same(recorded) else recorded

    async def reached(self, position: int) -> None:
        """Wait until everything up to a position is known."""
        if self.position >= position:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((position, waiting))
        self.awaited += 1
        try:
            await waiting
        finally:
            self.awaited -= 1

    def _note(self, recorded: Sequence[Recorded]) -> None:
        for one in recorded:
            subject = one.subject
            if subject.split(".", 4)[3] in self._kinds and one.position > self._newest.get(subject, 0):
                self._newest[subject] = one.position

    def _move(self, last: int) -> None:
        if last <= self.position:
            return
        self.position = last
        while self._ahead and (behind := [before for before in self._ahead if before <= self.position]):
            for before in behind:
                self.position = max(self.position, self._ahead.pop(before))
        if self._waiting:
            still = []
            for position, waiting in self._waiting:
                if position > self.position and not waiting.done():
                    still.append((position, waiting))
                elif not waiting.done():
                    waiting.set_result(None)
            self._waiting = still
