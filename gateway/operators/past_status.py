"""The state of the past, as the projections that keep it report it."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from domain.contract import PastStatus
from projections import times

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class PastView(TypedDict):
    """How far the rows of the past are; `lag`: events of the log after their `position`."""

    position: int
    lag: int | None
    last_error: str | None
    failing_since: Time | None


def shown(of: PastStatus | None, end: int | None) -> PastView | None:
    """The report as the API shows it. `end`: the end of the log, if it is known."""
    if of is None:
        return None
    return {
        "position": of.position,
        "lag": max(end - of.position, 0) if end is not None else None,
        "last_error": of.last_error,
        "failing_since": times.maybe(of.failing_since),
    }
