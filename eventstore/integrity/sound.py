"""The fast check of a range of the log: it says whether nothing at all is wrong there, not what is wrong.

Almost every range of every log is sound. A range that is not is verified message by message (`verify.py`), so this file
and that one have to agree only on what is right. It needs no other part of the log, so ranges can be checked in any
order, by several processes. `tests/integrity/test_sound.py` compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from domain.base import event_type
from eventstore.log.envelope import Recorded
from eventstore.log.judge import Malformed, body, shape
from eventstore.log.macs import EventKeys
from eventstore.log.upcast import all_types, type_version
from runtime.bus.headers import Odd, parsed

_ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""When a message was stored does not matter here."""

Known = tuple[int, str]
"""The version of an aggregate's event, and its digest."""


@dataclass(frozen=True, slots=True)
class Sound:
    """What the rest of the log has to fit: the digests of all events of the range, as bytes one after the other.

    `aggregates`: for each subject, what its first event has to follow (a version and a digest), and its last event
    (version, position, digest).
    """

    first: int
    digests: bytes
    aggregates: dict[str, tuple[Known, tuple[int, int, str]]]

    @property
    def count(self) -> int:
        return len(self.digests) // 32

    @property
    def last(self) -> int:
        return self.first + self.count - 1


class Checker:
    """Checks ranges. `foreign`: patterns of types of other programs that are accepted."""

    def __init__(self, event_keys: EventKeys | None, foreign: Sequence[str]) -> None:
        all_types()
        self._event_keys = event_keys
        self._foreign = foreign

    def check(self, first: int, messages: Sequence[tuple[bytes, bytes]]) -> Sound | None:
        """The messages from position `first` on, each with its headers and its body as the server sent them.

        None if a message is malformed, of an unknown type, not at the next position, or does not follow the one before
        of its aggregate.
        """
        digests: list[bytes] = []
        starts: dict[str, Known] = {}
        ends: dict[str, tuple[int, int, str]] = {}
        for position, (block, payload) in enumerate(messages, first):
            headers = parsed(block)
            if headers is None or type(headers) is Odd or headers.get("Nats-Sequence") != str(position):
                return None
            subject = headers["Nats-Subject"]
            recorded = Recorded(position, subject, headers, payload, _ANY_TIME, None, False, self._event_keys)
            if shape(recorded) is not None:
                return None
            version, previous = recorded.version, recorded.previous
            end = ends.get(subject)
            if end is None:
                starts[subject] = (version - 1, previous)
            elif (version - 1, previous) != (end[0], end[2]):
                return None
            if isinstance(body(recorded), Malformed) or not self._is_known(recorded):
                return None
            ends[subject] = (version, position, recorded.digest)
            digests.append(bytes.fromhex(recorded.digest))
        return Sound(first, b"".join(digests), {subject: (starts[subject], end) for subject, end in ends.items()})

    def _is_known(self, recorded: Recorded) -> bool:
        """Whether its type is known, in this version, or declared foreign."""
        kind = event_type(recorded.type)
        if kind is None:
            return any(fnmatchcase(recorded.type, pattern) for pattern in self._foreign)
        return type_version(recorded.headers) <= kind.VERSION
