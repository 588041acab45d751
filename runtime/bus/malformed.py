"""Malformed messages that are not stored: their number for each source, and facts about the newest one.

A message on a subject without a stream cannot be parked. It is counted in memory under the name of its source, and
shown in `/healthz`. For the newest one the time, the subject and the error are kept; the error does not repeat its
content.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from runtime import logs

log = logs.get(__name__)

#: Characters of a subject and of a reason that are kept.
MOST_TEXT = 200


class Counted(BaseModel):
    """The counts of one source."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    count: int = Field(ge=0, le=2**53)
    last_at: AwareDatetime
    last_subject: str = Field(max_length=MOST_TEXT)
    last_reason: str = Field(max_length=MOST_TEXT)


class Malformed:
    """The counts of one process. Sources are named by the program, never by a message."""

    def __init__(self) -> None:
        self._by_source: dict[str, Counted] = {}

    def note(self, source: str, subject: str, error: Exception | str) -> None:
        """Count one more. It is logged the 1st, 2nd, 4th, 8th ... time."""
        before = self._by_source.get(source)
        times = (before.count if before is not None else 0) + 1
        why = reason(error)
        self._by_source[source] = Counted(
            count=times, last_at=datetime.now(UTC), last_subject=cut(subject), last_reason=why
        )
        if times & (times - 1) == 0:
            log.warning("malformed message ignored", source=source, subject=cut(subject), error=why, times=times)

    def of(self, source: str) -> Counted | None:
        """The counts of one source; None if it has had no malformed message."""
        return self._by_source.get(source)

    def counts(self) -> Mapping[str, Any]:
        """The counts of all sources as JSON, by source."""
        return {source: found.model_dump(mode="json") for source, found in self._by_source.items()}


def reason(error: BaseException | str) -> str:
    """What is wrong with a message, without its content."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        return cut(f"{field}: {first['msg']}" if field else first["msg"])
    return cut(str(error))


def cut(text: str) -> str:
    """The beginning of a text, in printable characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:MOST_TEXT])
