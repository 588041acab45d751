"""Times as text: the fast way writes what `isoformat` writes."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies as st
from pydantic import AwareDatetime, TypeAdapter

from runtime.text.iso import iso, iso_z

_ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=2)), timezone(timedelta(seconds=20))])


@given(st.datetimes(timezones=_ZONES))
def test_any_time_is_written_as_by_isoformat(moment: datetime) -> None:
    assert iso(moment) == moment.isoformat()


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_in_utc_have_microseconds_and_a_z(moment: datetime) -> None:
    assert iso_z(moment) == moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00Z", "2026-01-31T12:00:00.000001Z", "9999-12-31T23:59:59Z"])
def test_times_that_pydantic_has_read(written: str) -> None:
    moment = TypeAdapter(AwareDatetime).validate_json(f'"{written}"')
    assert iso(moment) == moment.isoformat()
    assert iso_z(moment) == moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
