"""Verifies that a log is complete, in order, and the one that was signed. Pure: events in, findings out.

Feed all events in the order of the log, and each checkpoint as soon as its position is reached. It keeps one tip per
aggregate in memory, so the log may have any length. After a finding it continues from what it found, so that one fault
gives one finding and does not hide a second fault.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from hashlib import sha256

from domain.base import event_type
from eventstore.integrity.checkpoints import Checkpoint, Keys, LogDigest
from eventstore.integrity.excluded import Excluded
from eventstore.integrity.report import Finding, Report
from eventstore.integrity.sound import Sound
from eventstore.integrity.verified import Tip, Verified, now
from eventstore.log.envelope import GENESIS, Recorded
from eventstore.log.judge import Malformed, body, follows, shape
from eventstore.log.macs import MAC, EventKeys
from eventstore.log.upcast import all_types, type_version
from runtime import subjects


class Verifier:
    """One verification of a log, or of the part of it after `start`.

    `keys`: public keys that are trusted; None: do not check signatures. `foreign`: patterns (`acme.*`) of types of
    other programs that are accepted. `event_keys`: checks the MACs of events; without it, messages at `excluded`
    positions count as forged.
    """

    def __init__(
        self,
        what: str,
        *,
        keys: Keys | None = None,
        foreign: Sequence[str] = (),
        start: LogDigest | None = None,
        log: str = subjects.EVENTS,
        event_keys: EventKeys | None = None,
        excluded: Excluded | None = None,
    ) -> None:
        all_types()
        self._keys = keys
        self._foreign = foreign
        self._log = log
        self._event_keys = event_keys
        self._excluded = excluded or Excluded()
        self._start = (start or LogDigest()).position
        self._at = start or LogDigest()
        self._sound_from = self._start
        self._tips: dict[str, Tip] = {}
        self._found: dict[str, Tip] = {}
        """Messages that did not follow the tip. If the next message follows them, an earlier event
        was lost or changed.
        """
        self._checkpoint: Checkpoint | None = None
        self.report = Report(what, first=self._start + 1, last=self._start, digest=self._at.digest)
        self.report.macs_checked = event_keys is not None

    def resume(self, verified: Verified) -> None:
        """Continue an earlier verification instead of beginning with the first position."""
        self._at, self._sound_from = verified.checkpoint.at, verified.position
        self._checkpoint = verified.checkpoint
        self._tips, self._found = verified.tips, verified.found
        report = self.report
        report.first, report.last, report.digest = verified.position + 1, verified.position, self._at.digest
        report.before, report.verified_at = verified.position, verified.at.isoformat()
        report.proven = verified.position
        report.add(*verified.findings)

    def reached(self, number: int, checkpoint: Checkpoint) -> Verified | None:
        """The state at a checkpoint that was just given, if it is valid and nothing but malformed messages was found.

        `number`: that of its message.
        """
        if self.report.proven != checkpoint.position or not self.report.genuine:
            return None
        return Verified(number, checkpoint, dict(self._tips), dict(self._found), tuple(self.report.findings), now())

    @property
    def at(self) -> LogDigest:
        """The digest of the log up to the last fed position."""
        return self._at

    def anchor(self, recorded: Recorded) -> None:
        """Add the last event of an aggregate before the verified part."""
        if recorded.position > self._start or recorded.subject in self._tips:
            detail = "is not an event before this range, or is the second one of its aggregate"
            self._add("anchor", recorded.position, detail, recorded.subject)
        elif (wrong := shape(recorded) or self._writer(recorded)) is not None:
            self._add(wrong.code, recorded.position, wrong.reason, recorded.subject)
        else:
            self._tips[recorded.subject] = Tip(recorded.version, recorded.position, recorded.digest)

    def feed(self, recorded: Recorded) -> None:
        """Add the next message."""
        self._order(recorded)
        wrong = shape(recorded) or self._writer(recorded)
        if wrong is None:
            self._chain(recorded)
        else:
            self._refuse(wrong, recorded)
        if recorded.position > self._at.position:
            self._at = self._at.after(recorded)
        self.report.events += 1

    def fits(self, sound: Sound) -> bool:
        """Whether a range that is sound follows what was fed before, so that `take` may add it."""
        if sound.first != self._at.position + 1:
            return False
        if self._event_keys is None and self._excluded.touches(sound.first, sound.last):
            return False
        for subject, (before, _) in sound.aggregates.items():
            tip = self._tips.get(subject)
            if before != ((tip.version, tip.digest) if tip else (0, GENESIS)) or subject in self._found:
                return False
        return True

    def take(self, sound: Sound) -> None:
        """Add the next events, which are a range that `fits`. Then call `advance` for their positions."""
        for subject, (_, end) in sound.aggregates.items():
            self._tips[subject] = Tip(*end)
        self.report.events += sound.count

    def advance(self, sound: Sound, position: int) -> None:
        """Move the digest of the log on to a position of a range that was added."""
        at, digests = self._at.position, sound.digests.hex()
        digest, event = self._at.digest, self._at.event
        for each in range(at + 1, position + 1):
            start = (each - sound.first) * 64
            event = digests[start : start + 64]
            digest = sha256(f"{digest} {each} {event}".encode()).hexdigest()
        self._at = LogDigest(position, digest, event)

    def _writer(self, recorded: Recorded) -> Malformed | None:
        """Why handlers did not write the message, as far as this is known here."""
        if self._event_keys is not None:
            fault = self._event_keys.fault(recorded.position, recorded.digest, recorded.headers.get(MAC))
            return None if fault is None else Malformed(fault.code, fault.reason)
        if recorded.position in self._excluded:
            return Malformed("forged", "a signed checkpoint excludes the message: handlers did not write it")
        return None

    def check(self, checkpoint: Checkpoint) -> None:
        """Add the next checkpoint. Call it as soon as its position is reached, or cannot be reached any more."""
        before, position = self._checkpoint, checkpoint.position
        self.report.checkpoints += 1
        if self._keys is not None and not checkpoint.signed_by(self._keys):
            known = checkpoint.key in self._keys
            why = "its signature is wrong" if known else f"it is signed by key {checkpoint.key}, which is not trusted"
            self._add("signature", position, f"the checkpoint of {checkpoint.time.isoformat()} is ignored: {why}")
            return
        self._checkpoint = checkpoint
        if checkpoint.log != self._log:
            self._add("checkpoint", position, f"the checkpoint is of another log, {checkpoint.log}")
            return
        if before is not None and (checkpoint.previous != before.id or position <= before.position):
            detail = f"the checkpoint is not the next one after that of position {before.position}"
            self._add("checkpoint", position, detail)
        elif before is None and self._start == 0 and checkpoint.previous != GENESIS:
            self._add("checkpoint", position, "the checkpoints before this one are missing")
        if position <= self._start:
            return
        signed = f"position {position}, signed at {checkpoint.time.isoformat()}"
        if position > self._at.position:
            self._add("truncated", self._at.position, f"the log ends here, but it once had {signed}")
            return
        if position < self._at.position:
            self._add("missing", position, f"the event at {signed}, is missing")
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
            f"between positions {first} and {checkpoint.position} this log differs from that of {signed}: {what}",
        )
        self._at = checkpoint.at

    def end(self, *, signed: bool = False) -> Report:
        """The result. `signed`: a finding is added if no valid signature covers the last event."""
        report, last = self.report, self._at.position
        report.last, report.digest, report.aggregates = last, self._at.digest, len(self._tips)
        if signed and self._keys is not None and last > max(report.proven, self._start):
            first = max(report.proven, self._start) + 1
            self._add("unsigned", first, f"no valid checkpoint covers positions {first} to {last}")
        return report

    def _order(self, recorded: Recorded) -> None:
        expected, position = self._at.position + 1, recorded.position
        if position > expected:
            missing = f"position {expected} is" if position == expected + 1 else f"{expected} to {position - 1} are"
            self._add("missing", expected, f"{missing} missing: the next event is at position {position}")
        elif position < expected:
            self._add("order", position, f"comes after position {self._at.position}", recorded.subject)

    def _chain(self, recorded: Recorded) -> None:
        """Check that the message follows the tip, as all readers do, and that its body can be parsed.

        Readers ignore a message that fails, and judge the next one as if it did not exist. But perhaps an earlier event
        was lost or changed. Then the next message follows this one, and no second finding is added.
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
        """Add the finding for a message that does not follow the tip."""
        position, version, subject = recorded.position, recorded.version, recorded.subject
        if version <= tip.version:
            detail = f"is event {version} of the aggregate, which is at {tip.version} (position {tip.position})"
            self._add("version", position, detail, subject, message=position)
        elif version > tip.version + 1:
            lost = f"{tip.version + 1} to {version - 1}" if version > tip.version + 2 else str(tip.version + 1)
            detail = f"is event {version} of the aggregate, but {lost} is missing (after position {tip.position})"
            self._add("version", position, detail, subject, message=position)
        elif tip.version == 0:
            detail = "is the first event of the aggregate, but its ce-prevhash names an earlier one"
            self._add("chain", position, detail, subject, message=position)
        else:
            detail = (
                f"event {tip.version} of the aggregate does not have the digest that event {version} "
                f"(position {position}) names in ce-prevhash: one of the two was altered"
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
