"""Is this log whole, in order, and the one that was signed? A pure answer: events in, findings out.

Feed every event in the order of the log, and each checkpoint once its position has been reached. What it keeps is one
tip per aggregate, so a log of any length fits. After a finding it goes on from what it found, so that one fault is told
once and a second one is not hidden by the first.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from domain.base import event_type
from eventstore.integrity.checkpoints import Checkpoint, Keys, LogDigest
from eventstore.log.envelope import GENESIS, Recorded
from eventstore.log.judge import Malformed, body, follows, shape
from eventstore.log.upcast import all_types, type_version
from runtime import subjects

MOST_FINDINGS = 1000
"""As many are kept; the others are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `code` is for programs, `detail` for people.

    `position` is where in the log; where two events disagree with each other it is the earlier one, and `detail` names
    both. `aggregate` is the subject, where one is concerned.
    """

    code: str
    position: int
    detail: str
    aggregate: str | None = None
    message: int = 0

    def __str__(self) -> str:
        where = f"position {self.position}" + (f" ({self.aggregate})" if self.aggregate else "")
        return f"{where}: {self.detail} [{self.code}]"


@dataclass
class Report:
    """What a walk came to. `proven` is the last position that a good signature covers."""

    what: str
    first: int = 0
    last: int = 0
    events: int = 0
    aggregates: int = 0
    checkpoints: int = 0
    proven: int = 0
    digest: str = GENESIS
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0

    @property
    def genuine(self) -> bool:
        """Whether nothing is wrong but that the log itself holds malformed messages.

        That a message does not follow could also come from tampering: it counts where a good signature covers it.
        """
        return not self.more_findings and all(
            f.message and (f.code in ("shape", "unreadable") or f.message <= self.proven) for f in self.findings
        )

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, *findings: Finding) -> None:
        for finding in findings:
            if len(self.findings) < MOST_FINDINGS:
                self.findings.append(finding)
            else:
                self.more_findings += 1

    def document(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


class Tip(NamedTuple):
    version: int
    position: int
    digest: str


class Verifier:
    """One walk through a log, or through a part of one that begins behind `start`.

    `keys` are trusted to sign; without any, signatures are not looked at. `foreign` are patterns (`acme.*`) of types
    that others may write.
    """

    def __init__(
        self,
        what: str,
        *,
        keys: Keys | None = None,
        foreign: Sequence[str] = (),
        start: LogDigest | None = None,
        log: str = subjects.EVENTS,
    ) -> None:
        all_types()
        self._keys = keys
        self._foreign = foreign
        self._log = log
        self._start = (start or LogDigest()).position
        self._at = start or LogDigest()
        self._sound_from = self._start
        self._tips: dict[str, Tip] = {}
        self._found: dict[str, Tip] = {}
        """Messages that did not follow, where the next one may tell whether it was they who were right."""
        self._checkpoint: Checkpoint | None = None
        self.report = Report(what, first=self._start + 1, last=self._start, digest=self._at.digest)

    @property
    def at(self) -> LogDigest:
        """How far it is."""
        return self._at

    def anchor(self, recorded: Recorded) -> None:
        """The last event of an aggregate before the part that is looked at."""
        if recorded.position > self._start or recorded.subject in self._tips:
            self._add("anchor", recorded.position, "stands where an event before this range should", recorded.subject)
        elif (wrong := shape(recorded)) is not None:
            self._add(wrong.code, recorded.position, wrong.reason, recorded.subject)
        else:
            self._tips[recorded.subject] = Tip(recorded.version, recorded.position, recorded.digest)

    def feed(self, recorded: Recorded) -> None:
        """The next message."""
        self._order(recorded)
        wrong = shape(recorded)
        if wrong is None:
            self._chain(recorded)
        else:
            self._refuse(wrong, recorded)
        if recorded.position > self._at.position:
            self._at = self._at.after(recorded)
        self.report.events += 1

    def check(self, checkpoint: Checkpoint) -> None:
        """The next checkpoint, as soon as its position is reached (or cannot be reached any more)."""
        before, position = self._checkpoint, checkpoint.position
        self.report.checkpoints += 1
        if self._keys is not None and not checkpoint.signed_by(self._keys):
            known = checkpoint.key in self._keys
            why = "its signature is wrong" if known else f"it is signed by key {checkpoint.key}, which is not trusted"
            self._add("signature", position, f"the checkpoint of {checkpoint.time.isoformat()} does not count: {why}")
            return
        self._checkpoint = checkpoint
        if checkpoint.log != self._log:
            self._add("checkpoint", position, f"the checkpoint speaks of another log, {checkpoint.log}")
            return
        if before is not None and (checkpoint.previous != before.id or position <= before.position):
            self._add("checkpoint", position, f"the checkpoint does not follow the one of position {before.position}")
        elif before is None and self._start == 0 and checkpoint.previous != GENESIS:
            self._add("checkpoint", position, "the checkpoints before this one are missing")
        if position <= self._start:
            return
        signed = f"position {position}, signed at {checkpoint.time.isoformat()}"
        if position > self._at.position:
            self._add("truncated", self._at.position, f"the log ends here, but once held {signed}")
            return
        if position < self._at.position:
            self._add("missing", position, f"the event of {signed}, is not there")
        elif checkpoint.digest == self._at.digest:
            self.report.proven = position if self._keys is not None else 0
        else:
            self._disagrees(checkpoint, signed)
        self._sound_from = position

    def _disagrees(self, checkpoint: Checkpoint, signed: str) -> None:
        same = checkpoint.event == self._at.event
        what = "an event before it was changed" if same else "this event is another one"
        first = self._sound_from + 1
        self._add(
            "altered" if same else "forked",
            first,
            f"between positions {first} and {checkpoint.position} this is not the log of {signed}: {what}",
        )
        self._at = checkpoint.at

    def end(self, *, signed: bool = False) -> Report:
        """The whole answer. `signed` asks that signatures reach to the last event."""
        report, last = self.report, self._at.position
        report.last, report.digest, report.aggregates = last, self._at.digest, len(self._tips)
        if signed and self._keys is not None and last > max(report.proven, self._start):
            first = max(report.proven, self._start) + 1
            self._add("unsigned", first, f"no good checkpoint covers positions {first} to {last}")
        return report

    def _order(self, recorded: Recorded) -> None:
        expected, position = self._at.position + 1, recorded.position
        if position > expected:
            missing = f"position {expected} is" if position == expected + 1 else f"{expected} to {position - 1} are"
            self._add("missing", expected, f"{missing} missing: the next event stands at position {position}")
        elif position < expected:
            self._add("order", position, f"stands behind position {self._at.position}", recorded.subject)

    def _chain(self, recorded: Recorded) -> None:
        """Whether it follows, as all readers judge it; then, whether it can be read.

        What does not follow, or cannot be read, is no event to any reader: the next one is judged as if it were not
        there. But it may also be that an event before it was lost or altered; then the next one follows on *it*, and
        one finding has said so.
        """
        subject, version = recorded.subject, recorded.version
        tip, found = self._tips.get(subject), self._found.pop(subject, None)
        here = Tip(version, recorded.position, recorded.digest)
        if tip is None and found is None and self._start and version > 1:
            detail = f"event {version - 1} of the aggregate is not in the file"
            self._add("anchor", recorded.position, detail, subject, message=recorded.position)
            self._found[subject] = here
            return
        tip = tip or Tip(0, 0, GENESIS)
        sound = follows(recorded, tip.version, tip.digest) is None
        if not sound and (found is None or follows(recorded, found.version, found.digest) is not None):
            late = found is not None and version == found.version + 1
            self._unchained(recorded, found if found is not None and late else tip)
        wrong = body(recorded)
        if isinstance(wrong, Malformed):
            self._refuse(wrong, recorded)
            self._found[subject] = here
        elif sound or (found is not None and follows(recorded, found.version, found.digest) is None):
            self._tips[subject] = here
            self._type(recorded)
        else:
            self._found[subject] = here
            self._type(recorded)

    def _refuse(self, wrong: Malformed, recorded: Recorded) -> None:
        self._add(wrong.code, recorded.position, wrong.reason, recorded.subject, message=recorded.position)

    def _unchained(self, recorded: Recorded, tip: Tip) -> None:
        """Say how it does not follow."""
        position, version, subject = recorded.position, recorded.version, recorded.subject
        if version <= tip.version:
            detail = f"is event {version} of the aggregate, which is at {tip.version} (position {tip.position})"
            self._add("version", position, detail, subject, message=position)
        elif version > tip.version + 1:
            lost = f"{tip.version + 1} to {version - 1}" if version > tip.version + 2 else str(tip.version + 1)
            detail = f"is event {version} of the aggregate, but {lost} is missing (behind position {tip.position})"
            self._add("version", position, detail, subject, message=position)
        elif tip.version == 0:
            detail = "is the first event of the aggregate, but names one before it"
            self._add("chain", position, detail, subject, message=position)
        else:
            detail = (
                f"event {tip.version} of the aggregate is not the one that event {version} (position {position}) was "
                "chained to: one of the two was altered"
            )
            self._add("chain", tip.position, detail, subject, message=position)

    def _type(self, recorded: Recorded) -> None:
        kind = event_type(recorded.type)
        if kind is None:
            if not any(fnmatchcase(recorded.type, pattern) for pattern in self._foreign):
                detail = f"{recorded.type} is neither a known type nor declared foreign"
                self._add("type", recorded.position, detail, recorded.subject)
        elif type_version(recorded.headers) > kind.VERSION:
            detail = f"{recorded.type} is of a newer version ({type_version(recorded.headers)}) than this program's"
            self._add("type", recorded.position, detail, recorded.subject)

    def _add(self, code: str, position: int, detail: str, aggregate: str | None = None, *, message: int = 0) -> None:
        self.report.add(Finding(code, position, detail, aggregate, message))
