"""Postgres that goes in the middle is away, in whatever words psycopg says so: no bug, and no event's fault."""

from typing import Any

import psycopg
import pytest
from psycopg import errors

from projections import database
from projections.database import Away
from projections.runner import passes


@pytest.mark.parametrize(
    "error",
    [
        psycopg.DatabaseError("server closed the connection unexpectedly"),
        psycopg.InterfaceError("the connection is closed"),
        errors.AdminShutdown("terminating connection due to administrator command"),
        errors.CrashShutdown("terminating connection because of crash of another server process"),
        errors.CannotConnectNow("the database system is starting up"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
async def test_however_postgres_goes_it_is_away(error: Exception) -> None:
    class Gone:
        async def check(self) -> None:
            pass

        def connection(self) -> Any:
            raise error

    with pytest.raises(Away):
        await database.fetch(Gone(), "SELECT 1 AS one", {})  # type: ignore[arg-type]


def test_an_answer_that_broke_off_is_no_events_fault() -> None:
    """Projections try again; they put no event aside for it."""
    assert passes(psycopg.DatabaseError("server closed the connection unexpectedly"))
    assert not passes(errors.CheckViolation("no such value"))
