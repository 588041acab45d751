"""A range of the log in one file, with its proofs. docs/archive.md describes the format.

The format is JSON Lines. The first member of each line, `sum`, is the SHA-256 of the rest of the line, so that damage
can be located. The last line has the SHA-256 of all lines before it. The chain of each aggregate and the signed
checkpoints detect intentional changes. Archives are read as a stream; only one tip per aggregate is kept in memory.
"""

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from eventstore.integrity.checkpoints import Checkpoint, Keys, LogDigest
from eventstore.integrity.excluded import Excluded
from eventstore.integrity.report import Finding, Report
from eventstore.integrity.verify import Verifier
from eventstore.log.envelope import Raw, Recorded
from eventstore.log.macs import EventKeys
from eventstore.log.received import own
from runtime import subjects
from runtime.bus.headers import parsed

FORMAT = "nebula-archive"
VERSION = 1
LONGEST = 8 * 1024 * 1024
"""Maximum number of bytes in a line. An event has at most 512 KiB; as JSON it may take six times as much."""

Document = dict[str, Any]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SPACE = re.compile(rb"[ \t\r\n]")
_CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f]")


class BadArchive(Exception):
    """The file is not an archive that this program can read."""


class Writer:
    """Writes an archive of the log after `start`, in the order of the calls."""

    def __init__(self, file: BinaryIO, start: LogDigest, log: str = subjects.EVENTS) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.at = start
        self.events = 0
        self.checkpoints = 0
        self._write(
            {
                "kind": "header",
                "format": FORMAT,
                "version": VERSION,
                "log": log,
                "after": start.position,
                "digest": start.digest,
                "event": start.event,
            }
        )

    def anchor(self, recorded: Recorded) -> None:
        self._write({"kind": "anchor", **event_document(recorded)})

    def event(self, recorded: Recorded) -> None:
        self._write({"kind": "event", **event_document(recorded)})
        self.at = self.at.after(recorded)
        self.events += 1

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        self._write({"kind": "checkpoint", **checkpoint.model_dump(mode="json", exclude_none=True)})
        self.checkpoints += 1

    def close(self) -> None:
        """Write the footer. The file itself stays open."""
        self._write(
            {
                "kind": "footer",
                "to": self.at.position,
                "events": self.events,
                "checkpoints": self.checkpoints,
                "digest": self.at.digest,
                "sha256": self._hash.hexdigest(),
            }
        )

    def _write(self, document: Document) -> None:
        written = line(document)
        self._hash.update(written)
        self._file.write(written)


def line(document: Document) -> bytes:
    """One line of an archive."""
    rest = json.dumps(document, ensure_ascii=False, separators=(",", ":"))[1:].encode()
    return b'{"sum":"' + hashlib.sha256(rest).hexdigest().encode() + b'",' + rest + b"\n"


def event_document(recorded: Recorded) -> Document:
    """A message as the object of a line. A body that is not UTF-8 is stored as base64. If subject and headers are not
    plain text, their bytes are stored as base64, in addition to their decoded form.
    """
    document: Document = {
        "position": recorded.position,
        "stored_at": recorded.stored_at.isoformat(),
        "subject": recorded.subject,
        "headers": dict(recorded.headers),
    }
    try:
        document["body"] = recorded.body.decode()
    except UnicodeDecodeError:
        document["body64"] = base64.b64encode(recorded.body).decode()
    if recorded.raw is not None:
        document["subject64"] = base64.b64encode(recorded.raw.subject).decode()
        document["headers64"] = base64.b64encode(recorded.raw.block).decode()
    return document


def event_of(document: Document) -> Recorded:
    """The message in a line. Raises ValueError, KeyError or TypeError if it is malformed.

    A message with anything that a server would interpret (its own headers, line ends) is refused.
    """
    headers, subject = document["headers"], str(document["subject"])
    if own(headers) != headers:
        raise ValueError("a header that is not the event's own")
    if not all(subjects.parse_event(subject)):
        raise ValueError("a part of the subject is empty")
    raw = raw_from(document, subject, headers)
    if raw is None and (_CONTROL.search("".join((*headers, *headers.values()))) or _CONTROL_OR_SPACE.search(subject)):
        raise ValueError("a control character in a header or the subject")
    body = document["body"].encode() if "body" in document else base64.b64decode(document["body64"], validate=True)
    return Recorded(
        position=int(document["position"]),
        subject=subject,
        headers=headers,
        body=body,
        stored_at=datetime.fromisoformat(document["stored_at"]),
        raw=raw,
    )


def raw_from(document: Document, subject: str, headers: dict[str, str]) -> Raw | None:
    """The bytes of subject and headers, if a line has them. Raises ValueError if the decoded form differs."""
    if "headers64" not in document:
        return None
    exact = base64.b64decode(document["subject64"], validate=True)
    block = base64.b64decode(document["headers64"], validate=True)
    if _SPACE.search(exact) or not block.endswith(b"\r\n\r\n") or b"\r\n\r\n" in block[:-1]:
        raise ValueError("subject64 is no subject, or headers64 is no block of headers")
    found = own(parsed(block) or {})
    if exact.decode(errors="replace") != subject or found != headers:
        raise ValueError("subject64 or headers64 differs from subject or headers")
    return Raw(exact, block)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an archive. `document`: None if it is not a JSON object; `intact`: whether its sum is right; `before`:
    the SHA-256 of all lines before the footer.
    """

    number: int
    document: Document | None
    intact: bool
    before: str

    @property
    def kind(self) -> str:
        return str((self.document or {}).get("kind"))


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """All lines of an archive, also damaged ones."""
    running, number = hashlib.sha256(), 0
    while raw := file.readline(LONGEST):
        number += 1
        before = running.hexdigest() if b'"footer"' in raw[:128] else ""
        running.update(raw)
        yield _parsed(raw, number, before)


def _parsed(raw: bytes, number: int, before: str) -> Line:
    expected = b'{"sum":"' + hashlib.sha256(raw[74:-1]).hexdigest().encode() + b'",' + raw[74:-1] + b"\n"
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    return Line(number, document if isinstance(document, dict) else None, raw == expected, before)


def header_of(first: Line | None) -> LogDigest:
    """The digest of the log at the start of the archive. Raises BadArchive if the file is no archive of a known
    version.
    """
    document = first.document if first is not None else None
    if document is None or document.get("format") != FORMAT:
        raise BadArchive("this is not an archive of a log, or its header is damaged")
    if document.get("version") != VERSION:
        raise BadArchive(
            f"the archive has format version {document.get('version')!r}; this program "
            f"reads version {VERSION}: upgrade it"
        )
    try:
        return LogDigest(int(document["after"]), str(document["digest"]), str(document["event"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadArchive(f"the archive's header is damaged: {error!r}") from error


def verify_file(
    path: Path,
    *,
    keys: Keys | None,
    foreign: Sequence[str] = (),
    signed: bool = True,
    event_keys: EventKeys | None = None,
) -> Report:
    """Verify an archive without a server.

    With `keys`, each event must be covered by a checkpoint that one of them signed (with `signed=False`, events after
    the last checkpoint need not be). Without `keys`, only the consistency of the file is checked. `event_keys`: checks
    the MACs of the events; without it, only messages that a checkpoint excludes are known to be forged. Raises OSError
    if the file cannot be read.
    """
    excluded = excluded_in(path, keys)
    with path.open("rb") as file:
        return _Walk(path, keys, foreign, event_keys, excluded).verify(file, signed)


def excluded_in(path: Path, keys: Keys | None) -> Excluded:
    """The positions that the checkpoints in an archive exclude, as far as their signatures are valid."""
    found = Excluded()
    with path.open("rb") as file:
        for raw in iter(lambda: file.readline(LONGEST), b""):
            if b'"excluded":' in raw and b'"kind":"checkpoint"' in raw[:128]:
                with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                    found.add(checkpoint_of(json.loads(raw)), keys)
    return found


class _Walk:
    def __init__(
        self, path: Path, keys: Keys | None, foreign: Sequence[str], event_keys: EventKeys | None, excluded: Excluded
    ) -> None:
        self._path = path
        self._verifying = partial(
            Verifier, str(path), keys=keys, foreign=foreign, event_keys=event_keys, excluded=excluded
        )
        self._verifier = self._verifying()

    def verify(self, file: BinaryIO, signed: bool) -> Report:
        lines = read_lines(file)
        first = next(lines, None)
        try:
            start = header_of(first)
        except BadArchive as error:
            self._add("header", 0, str(error))
            start = LogDigest()
        else:
            log = str((first.document or {}).get("log")) if first else subjects.EVENTS
            self._verifier = self._verifying(start=start, log=log)
        if first is not None and not first.intact:
            self._add("line", start.position, "line 1 (the header) was altered")
        ended = False
        for each in lines:
            position = self._verifier.at.position
            if ended:
                self._add("line", position, f"line {each.number} stands behind the footer")
                break
            if not each.intact:
                self._add("line", position + 1, f"line {each.number} of the file was altered or cut off")
            ended = self._take(each)
        if not ended:
            self._add("truncated", self._verifier.at.position, "the file ends here, without a footer")
        return self._verifier.end(signed=signed)

    def _take(self, each: Line) -> bool:
        """Verify one line. Returns True for the footer."""
        document = each.document or {}
        try:
            match each.kind:
                case "event":
                    self._verifier.feed(event_of(document))
                case "anchor":
                    self._verifier.anchor(event_of(document))
                case "checkpoint":
                    self._verifier.check(checkpoint_of(document))
                case "footer":
                    self._footer(each, document)
                    return True
                case _ if each.intact:
                    self._add("line", self._verifier.at.position, f"line {each.number} is of an unknown kind")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if each.intact:
                self._add("line", self._verifier.at.position + 1, f"line {each.number} is malformed: {error!r}")
        return False

    def _footer(self, each: Line, document: Document) -> None:
        at, report = self._verifier.at, self._verifier.report
        stated = {name: document.get(name) for name in ("to", "events", "checkpoints", "sha256")}
        found = {
            "to": at.position,
            "events": report.events,
            "checkpoints": report.checkpoints,
            "sha256": each.before,
        }
        wrong = [f"{name} is {found[name]}, not {stated[name]}" for name in found if stated[name] != found[name]]
        if wrong:
            self._add("footer", at.position, f"the footer does not fit the file: {'; '.join(wrong)}")

    def _add(self, code: str, position: int, detail: str) -> None:
        self._verifier.report.add(Finding(code, position, detail))


def checkpoint_of(document: Document) -> Checkpoint:
    """The checkpoint in a line. Raises ValueError if it is malformed."""
    try:
        return Checkpoint.model_validate({k: v for k, v in document.items() if k not in ("sum", "kind")})
    except ValidationError as error:
        raise ValueError(str(error).splitlines()[0]) from error
