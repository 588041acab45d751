"""A time as text in ISO 8601, fast: each command writes several, and `datetime.isoformat` takes 2 µs in Python 3.11."""

from datetime import UTC, datetime

from msgspec.json import encode


def iso(moment: datetime) -> str:
    """The same text as `moment.isoformat()`."""
    if moment.tzinfo is UTC:
        return f"{encode(moment)[1:-2].decode()}+00:00"  # without the quotation marks, and the `Z` before the last one
    return moment.isoformat()


def iso_z(moment: datetime) -> str:
    """A time in UTC, whatever object its time zone is: `2026-01-31T12:00:00.000000Z`, always with microseconds."""
    if moment.microsecond:
        return encode(moment.replace(tzinfo=UTC))[1:-1].decode()
    return f"{moment.isoformat(timespec='microseconds')[:26]}Z"
