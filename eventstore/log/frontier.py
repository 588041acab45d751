"""The position up to which this process knows the log without a gap, and the newest positions of some aggregates.

A process learns of an event in two ways: it appends the event itself, or it reads the log. With both it usually knows
without waiting whether an aggregate has an event up to a position.

A reader of the log need not read what the process has appended: see `following`.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from eventstore.log.envelope import Recorded, Ref
from runtime.bus.polling import ignore


class Frontier:
    """All events up to `position` are known. `kinds`: the newest positions of aggregates of these kinds are kept."""

    def __init__(self, kinds: Collection[str] = ()) -> None:
        self.position = 0
        self.awaited = 0
        """The number of tasks that wait for a position."""
        self.kinds = frozenset(kinds)
        self._newest: dict[str, int] = {}
        self._ahead: dict[int, int] = {}
        """Ranges of own events after a gap: the position before the first one, and the position of the last one."""
        self._own: dict[int, Recorded] = {}
        """Own events that were not read from the log yet."""
        self.handed_on = 0
        """The position up to which `hand_on` was called."""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._sent: set[str] = set()
        """The subjects on which this process is appending."""
        self.others = 0
        """The number of events that were read, and that this process did not append."""
        self._urgent = False
        """Whether somebody waits for what the log has now."""
        self.on_wait: Callable[[], None] = ignore

    def begin(self, position: int, newest: Iterable[tuple[Ref, int]]) -> None:
        """Begin after a position, up to which somebody else has read the log. `newest`: what `newest` returns then."""
        self.position = self.handed_on = position
        self._newest = {ref.subject: last for ref, last in newest}

    def newest(self, ref: Ref) -> int:
        """The position of the newest known event of an aggregate; 0 if there is none."""
        return self._newest.get(ref.subject, 0)

    def add_own(self, recorded: Sequence[Recorded]) -> None:
        """Add events that this process appended, at consecutive positions."""
        before, last = recorded[0].position - 1, recorded[-1].position
        self._note(recorded)
        self._own.update((one.position, one) for one in recorded if one.position > self.handed_on)
        if before <= self.position:
            self._move(last)
        else:
            self._ahead[before] = max(last, self._ahead.get(before, 0))

    @contextmanager
    def sending(self, subjects: Collection[str]) -> Iterator[None]:
        """Inside the block this process appends on these subjects: what is read there is its own."""
        self._sent.update(subjects)
        try:
            yield
        finally:
            self._sent.difference_update(subjects)

    def following(self, after: int) -> list[Recorded]:
        """The own events at the positions directly after this one. A reader need not read them."""
        found = []
        while (own := self._own.get(after + 1)) is not None:
            found.append(own)
            after += 1
        return found

    def lacks(self, after: int) -> bool:
        """Whether the log has to be read now by a reader that has come up to this position: it has events there that
        this process did not append, or somebody waits for what it has.
        """
        urgent, self._urgent = self._urgent, False
        return urgent or bool(self._waiting or self._ahead) or (self.position > after and after + 1 not in self._own)

    def urge(self) -> None:
        """Somebody waits for what the log has now: read it soon."""
        self._urgent = True
        self.on_wait()

    def add_read(self, recorded: Sequence[Recorded]) -> None:
        """Add messages that were read from the log: all events up to the last one are known then."""
        if recorded[-1].position > self.position:  # else they are known
            own, sent = self._own, self._sent
            self.others += sum(one.position not in own and one.subject not in sent for one in recorded)
            self._note(recorded)
            self._move(recorded[-1].position)

    def hand_on(self, recorded: Sequence[Recorded]) -> list[Recorded]:
        """The next messages of the log for a reader. Own events are replaced by the objects that were appended, whose
        typed events are already known.
        """
        self.handed_on = recorded[-1].position
        return [self._recognized(one) for one in recorded]

    def _recognized(self, recorded: Recorded) -> Recorded:
        own = self._own.pop(recorded.position, None)
        if own is None or own is recorded:
            return recorded
        return own if own.same_bytes(recorded) else recorded

    async def wait_for(self, position: int) -> None:
        """Wait until all events up to a position are known."""
        if self.position >= position:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((position, waiting))
        self.awaited += 1
        self.on_wait()
        try:
            await waiting
        finally:
            self.awaited -= 1

    def _note(self, recorded: Sequence[Recorded]) -> None:
        for one in recorded:
            subject = one.subject
            if subject.split(".", 4)[3] in self.kinds and one.position > self._newest.get(subject, 0):
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
