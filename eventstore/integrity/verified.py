"""The state of a verification at a signed checkpoint, kept in a file, so that the next one reads only what came after.

The file has a MAC of an event key: who could make one could forge events as well. It is not used when anything about it
is in doubt, and then the whole log is read: other keys, other rules, another checkpoint or another event at its place.
The events before it are not read again, so a change of them is found by `--all` only.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from eventstore.integrity.checkpoints import Checkpoint, Keys as PublicKeys
from eventstore.integrity.notary import Checkpoints, Disagrees
from eventstore.integrity.report import Finding
from eventstore.log.keyring import Keyring
from eventstore.log.macs import Key, Keys
from eventstore.log.store import EventStore
from eventstore.log.upcast import all_types
from runtime import subjects
from runtime.files import files

RULES = 1
"""The version of the rules of a verification. Raise it when they change: everything is then verified again."""
_LABEL = b"nebula verified 1\0"


class Doubt(Exception):
    """The file cannot be used. The text says why."""


class Tip(NamedTuple):
    """The last event of an aggregate."""

    version: int
    position: int
    digest: str


@dataclass(frozen=True)
class Verified:
    """What is known at a checkpoint. `number`: of its message. `found`: messages that did not follow the tips."""

    number: int
    checkpoint: Checkpoint
    tips: dict[str, Tip]
    found: dict[str, Tip]
    findings: tuple[Finding, ...]
    at: datetime

    @property
    def position(self) -> int:
        return self.checkpoint.position


class Kept:
    """The file. `keys`: the event keys, of which one makes its MAC; `trusted`: the public keys of the checkpoints;
    `foreign`: as in `Verifier`.
    """

    def __init__(self, path: Path, keys: Keyring, trusted: PublicKeys, foreign: Sequence[str]) -> None:
        self._path = path
        self._keys = keys
        self._trusted = trusted
        self._foreign = sorted(foreign)

    async def load(self, store: EventStore, checkpoints: Checkpoints, last: int) -> Verified | None:
        """The state, if it still fits the log; None if there is no file. `last`: the last position of the log.

        Raises Doubt if it cannot be used, Unavailable.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Doubt(f"{self._path} cannot be read: {error.strerror}") from error
        verified = self._opened(content)
        position = verified.position
        try:
            stored = await checkpoints.number(verified.number)
        except Disagrees as error:
            raise Doubt(str(error)) from error
        if stored is None or stored.id != verified.checkpoint.id or not stored.signed_by(self._trusted):
            raise Doubt(f"the checkpoint of position {position} is not the one that was verified")
        if last < position:
            raise Doubt(f"the log ends at position {last}, and was verified up to {position}")
        page = await store.read(position - 1, None, 1)
        if not page or page[0].position != position or page[0].digest != verified.checkpoint.event:
            raise Doubt(f"the event at position {position} is not the one that was verified")
        return verified

    def save(self, verified: Verified) -> None:
        """Replace the file. Raises OSError."""
        keys = self._keys.load()
        head = {
            "rules": rules(),
            "log": subjects.EVENTS,
            "number": verified.number,
            "checkpoint": verified.checkpoint.model_dump(mode="json"),
            "trusted": sorted(self._trusted),
            "event_keys": accepted(keys, verified.position),
            "since": keys.since,
            "foreign": self._foreign,
            "findings": [asdict(finding) for finding in verified.findings],
            "at": verified.at.isoformat(),
            "key": keys.signer,
        }
        lines = [json.dumps(head)]
        for kind, tips in (("tip", verified.tips), ("found", verified.found)):
            lines += [f"{kind} {subject} {tip.version} {tip.position} {tip.digest}" for subject, tip in tips.items()]
        body = "\n".join([*lines, ""]).encode()
        files.put(self._path, body + _tag(keys.by_id[keys.signer], body))

    def remove(self) -> None:
        """Remove the file, if there is one. Raises OSError."""
        self._path.unlink(missing_ok=True)

    def _opened(self, content: bytes) -> Verified:
        keys = self._keys.load()
        body, _, tag = content.rpartition(b"\n")
        body += b"\n"
        try:
            head: dict[str, Any] = json.loads(body[: body.index(b"\n")])
            key = keys.by_id.get(head["key"])
            if key is None or key.until is not None or not hmac.compare_digest(_tag(key, body), tag):
                raise Doubt(f"{self._path} is damaged, or no event key of now signed it")
            if (head["rules"], head["log"]) != (rules(), subjects.EVENTS):
                raise Doubt(f"{self._path} is of another version of the program, or of another log")
            checkpoint = Checkpoint.model_validate(head["checkpoint"])
            before = (head["trusted"], head["event_keys"], head["since"], head["foreign"])
            now = (sorted(self._trusted), accepted(keys, checkpoint.position), keys.since, self._foreign)
            if before != now:
                raise Doubt("other keys, or other types, were accepted then")
            tips = {"tip": dict[str, Tip](), "found": dict[str, Tip]()}
            for line in body.decode().split("\n")[1:-1]:
                kind, subject, version, position, digest = line.split(" ")
                tips[kind][subject] = Tip(int(version), int(position), digest)
            findings = tuple(Finding(**finding) for finding in head["findings"])
            at = datetime.fromisoformat(head["at"])
        except (ValueError, KeyError, TypeError) as error:
            raise Doubt(f"{self._path} is damaged") from error
        return Verified(head["number"], checkpoint, tips["tip"], tips["found"], findings, at)


def accepted(keys: Keys, position: int) -> dict[str, int]:
    """For each event key, the last position up to this one that it may sign."""
    return {id_: position if key.until is None else min(key.until, position) for id_, key in keys.by_id.items()}


def rules() -> str:
    """What was known of events: it changes with the types and their versions."""
    known = sorted((topic, kind.VERSION) for topic, kind in all_types().items())
    return f"{RULES}-{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"


def now() -> datetime:
    return datetime.now(UTC)


def _tag(key: Key, body: bytes) -> bytes:
    return hmac.digest(key.secret, _LABEL + body, "sha256").hex().encode()
