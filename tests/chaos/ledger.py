"""What the writers were told: of each append, what it was to store and what came of it."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from domain.base import Event
from eventstore.log.envelope import Recorded
from eventstore.log.store import Change, Tip


class Entry(NamedTuple):
    """An event, in little space. `sum` covers subject, body and all headers of its own."""

    position: int
    subject: str
    mark: str
    sum: str


def entry(recorded: Recorded) -> Entry:
    whole = repr((recorded.subject, sorted(recorded.headers.items()), recorded.body))
    sum_ = hashlib.sha256(whole.encode()).hexdigest()
    return Entry(recorded.position, recorded.subject, recorded.context.operation or "", sum_)


@dataclass(slots=True)
class Attempt:
    """One append, however often it was sent: all its events carry its mark.

    `told` has an entry for each acknowledgement; `refused` is a Conflict that speaks for all that was sent.
    """

    mark: str
    size: int
    tips: tuple[tuple[str, int], ...]
    told: list[tuple[Entry, ...]] = field(default_factory=list)
    refused: bool = False

    def acknowledge(self, recorded: Iterable[Recorded]) -> None:
        self.told.append(tuple(entry(r) for r in recorded))


@dataclass(slots=True)
class Ledger:
    """All appends of a run, by mark, and what was counted on the way."""

    attempts: dict[str, Attempt] = field(default_factory=dict)
    #: sendings that ended without an outcome
    unknown: int = 0
    #: appends that one of those had stored
    found: int = 0
    #: acknowledged appends that were sent once more
    repeated: int = 0
    #: acknowledgements
    answers: int = 0

    @property
    def acknowledged(self) -> int:
        return sum(bool(attempt.told) for attempt in self.attempts.values())

    @property
    def refused(self) -> int:
        return sum(attempt.refused and not attempt.told for attempt in self.attempts.values())

    def enter(self, mark: str, tips: Sequence[Tip], events: Callable[[str], Sequence[Event]]) -> "Draft":
        """A new append of `events(mark)` on each of the tips."""
        changes = [Change(tip, events(mark)) for tip in tips]
        attempt = Attempt(
            mark,
            sum(len(change.events) for change in changes),
            tuple((tip.ref.subject, tip.position) for tip in tips),
        )
        self.attempts[mark] = attempt
        return Draft(attempt, changes)


class Draft(NamedTuple):
    """An append as it is sent, and its page in the ledger."""

    attempt: Attempt
    changes: list[Change]
