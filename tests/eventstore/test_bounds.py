"""Numbers and times out of bounds are found wherever they are in an event."""

from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

import pytest
from pydantic import BaseModel

from eventstore.log.judge import in_bounds

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
GOOD: list[Any] = [0, -(2**63), 2**63 - 1, 1.5, True, None, "x", b"x", (), EARLIEST, {"a": (1,)}]
BAD: list[Any] = [
    2**63,
    -(2**63) - 1,
    1e19,
    float("inf"),
    float("nan"),
    datetime(1969, 12, 31, tzinfo=UTC),
    datetime(9991, 1, 1, tzinfo=UTC),
    datetime(2030, 1, 1),  # noqa: DTZ001
]


class Part(BaseModel):
    held: Any
    name: str = "x"


class Later(datetime):
    """A subclass, as a parser may make."""


class Number(IntEnum):
    LARGE = 2**63


def places(value: Any) -> list[Any]:
    """The value alone, and in all kinds of holders."""
    inner = [value, (value,), [value], ("x", 1, value), {"a": value}, Part(held=value), Part(held=(Part(held=value),))]
    return [*inner, (inner[1], inner[4]), Part(held={"a": [value]})]


@pytest.mark.parametrize("value", GOOD, ids=repr)
def test_what_fits_is_accepted_everywhere(value: Any) -> None:
    assert all(in_bounds(each) for each in places(value))


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_what_does_not_fit_is_found_everywhere(value: Any) -> None:
    assert not any(in_bounds(each) for each in places(value))


def test_subclasses_are_what_they_are() -> None:
    assert in_bounds((Later(2030, 1, 1, tzinfo=UTC), Number.LARGE))
    assert not in_bounds((Later(2030, 1, 1),))
    assert not in_bounds(Later(9999, 1, 1, tzinfo=UTC) - timedelta(days=1))


@pytest.mark.parametrize("holder", [lambda inner: (inner,), lambda inner: [inner], lambda inner: {"a": inner}])
def test_very_deep_values_are_refused(holder: Any) -> None:
    value: Any = 1
    for _ in range(40):
        value = holder(value)
    assert in_bounds(value)
    for _ in range(40):
        value = holder(value)
    assert not in_bounds(value)
