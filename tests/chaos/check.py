"""Is the log what the writers were told, and the feeds what the log is? A pure answer: all three in, violations out."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from eventstore.integrity.verify import Verifier
from eventstore.log.envelope import Recorded
from tests.chaos.ledger import Attempt, Entry, Ledger, entry


class Violation(NamedTuple):
    """One broken promise. `code` is for programs, `detail` for people; `eventstore/integrity/verify.py` has more."""

    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.detail} [{self.code}]"


class Check:
    """Feed every event in the order of the log, then ask for `violations`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._verifier = Verifier("chaos")
        self.log: list[Entry] = []

    def feed(self, events: Iterable[Recorded]) -> None:
        for recorded in events:
            self._verifier.feed(recorded)
            self.log.append(entry(recorded))

    @property
    def aggregates(self) -> int:
        return len({stands.subject for stands in self.log})

    def violations(self) -> list[Violation]:
        """All that is wrong with the log: chain and order first, then what the writers were told."""
        report = self._verifier.end()
        found = [Violation(finding.code, str(finding)) for finding in report.findings]
        at = {stands.position: stands for stands in self.log}
        of = defaultdict(list)
        on = defaultdict(list)
        for stands in self.log:
            of[stands.mark].append(stands)
            on[stands.subject].append(stands.position)
        for mark, there in of.items():
            if mark not in self._ledger.attempts:
                where = ", ".join(str(stands.position) for stands in there)
                found.append(Violation("stranger", f"nobody wrote {mark!r}, which stands at {where}"))
        for attempt in self._ledger.attempts.values():
            there = of.get(attempt.mark, [])
            found += _kept(attempt, there, at)
            found += _whole(attempt, there)
            if attempt.refused and not attempt.told:
                found += _rightly_refused(attempt, there, on)
            elif not attempt.told:
                found.append(Violation("unresolved", f"{attempt.mark}: it was never learned what came of it"))
        return found


def _kept(attempt: Attempt, there: Sequence[Entry], at: dict[int, Entry]) -> Iterator[Violation]:
    """What was acknowledged stands where it was said to, as it was said."""
    for said in (said for told in attempt.told for said in told):
        stands = at.get(said.position)
        if stands == said:
            continue
        what = f"{attempt.mark}: acknowledged at {said.position} on {said.subject}"
        elsewhere = [str(other.position) for other in there if other.sum == said.sum]
        if elsewhere:
            yield Violation("position", f"{what}, stands at {', '.join(elsewhere)}")
        elif stands is not None and stands.mark == said.mark:
            yield Violation("content", f"{what}, but subject, headers or body are others")
        else:
            yield Violation("lost", f"{what}, not there")


def _whole(attempt: Attempt, there: Sequence[Entry]) -> Iterator[Violation]:
    """All of its events are there, once and next to each other, or none is."""
    where = ", ".join(str(stands.position) for stands in there)
    if len(there) > attempt.size:
        yield Violation("doubled", f"{attempt.mark}: {attempt.size} events, but {len(there)} are there, at {where}")
    elif 0 < len(there) < attempt.size:
        yield Violation("torn", f"{attempt.mark}: {len(there)} of {attempt.size} events are there, at {where}")
    elif there and there[-1].position - there[0].position != len(there) - 1:
        yield Violation("scattered", f"{attempt.mark}: its events do not stand next to each other, but at {where}")


def _rightly_refused(attempt: Attempt, there: Sequence[Entry], on: dict[str, list[int]]) -> Iterator[Violation]:
    """What was refused is absent, and somebody else stands in its way."""
    if there:
        where = ", ".join(str(stands.position) for stands in there)
        yield Violation("refused", f"{attempt.mark}: refused, but it stands at {where}")
    elif not any(bisect_right(on[subject], tip) < len(on[subject]) for subject, tip in attempt.tips):
        yield Violation("baseless", f"{attempt.mark}: refused, but nobody appended behind {attempt.tips}")


def compare(name: str, saw: Sequence[Entry], log: Sequence[Entry]) -> Iterator[Violation]:
    """Whether a feed saw exactly these events in this order."""
    at = {stands.position: stands for stands in log}
    seen: set[int] = set()
    last = 0
    for event in saw:
        what = f"feed {name}: position {event.position}"
        if event.position in seen:
            yield Violation("feed-repeat", f"{what} came twice")
        elif event.position < last:
            yield Violation("feed-order", f"{what} came behind {last}")
        if event.position not in at:
            yield Violation("feed-stranger", f"{what} is not for it, or not in the log")
        elif at[event.position] != event:
            yield Violation("feed-content", f"{what} is another event than in the log")
        seen.add(event.position)
        last = max(last, event.position)
    for position in at:
        if position not in seen:
            yield Violation("feed-gap", f"feed {name}: position {position} never came")
