"""Times of the API: RFC 3339, written in UTC, always with microseconds."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from runtime.text.iso import iso_z

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)([Zz]|[+ -]\d\d:\d\d)", re.ASCII)


_ZERO = timedelta(0)


@lru_cache(maxsize=256)
def text(moment: datetime) -> str:
    """`2026-01-31T12:00:00.000000Z`. Each view has several, most of them the same: such as when it was accepted."""
    at = moment if moment.utcoffset() == _ZERO else moment.astimezone(UTC)
    return iso_z(at)


def maybe(moment: datetime | None) -> str | None:
    """The same for a time that may be missing."""
    return None if moment is None else text(moment)


def utc(written: str) -> str:
    """Convert a time that Postgres or handlers wrote to the API's form."""
    if len(written) == 27 and written[-1] == "Z":
        return written
    return text(datetime.fromisoformat(written))


def parse(written: str) -> datetime:
    """Parse a time from a client. A `+` that became a space in a URL is accepted. Raises ValueError."""
    found = _RFC3339.fullmatch(written)
    if found is None:
        raise ValueError("not an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z")
    day, clock, zone = found.groups()
    head, _, fraction = clock.partition(".")
    zone = "+00:00" if zone in "Zz" else zone.replace(" ", "+")
    try:
        return datetime.fromisoformat(f"{day}T{head}.{fraction[:6]:0<6}{zone}").astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no such time: {error}") from error
