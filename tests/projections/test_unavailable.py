"""Postgres that goes in the middle is away, in whatever words psycopg says so: no bug, and no event's fault."""

import json
from typing import Any

import psycopg
import pytest
from psycopg import errors

from projections import database
from projections.books import TABLES
from projections.database import ReadModelsUnavailable
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

    with pytest.raises(ReadModelsUnavailable):
        await database.fetch(Gone(), "SELECT 1 AS one", {})  # type: ignore[arg-type]


def test_an_answer_that_broke_off_is_no_events_fault() -> None:
    """Projections try again; they put no event aside for it."""
    assert passes(psycopg.DatabaseError("server closed the connection unexpectedly"))
    assert not passes(errors.CheckViolation("no such value"))


@pytest.mark.parametrize(
    ("kind", "changed"), [("vm", {"phase": "rescued"}), ("node", {"info": 7}), ("tag", {"name": 1})]
)
def test_a_row_that_another_version_wrote_is_away(kind: str, changed: dict[str, Any]) -> None:
    """A state that this version does not know is no reason for a traceback in the middle of an upgrade."""
    at = "2026-01-02T03:04:05Z"
    state: dict[str, Any] = {"created_at": at, "updated_at": at, "registered_at": at, "id": "x", "name": "x"}
    state |= {"project": "p", "image": "i", "phase": "running", "desired": "on", "boots": 1}
    state |= {"spec": {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}}
    info = dict.fromkeys(("node", "region", "virt_type", "seed_url", "version"), "x")
    state |= {"info": {**info, **dict.fromkeys(("vcpus", "memory_mib", "disk_gib"), 1)}}
    assert database.parsed(TABLES[kind].of.stored, json.dumps(state)).id == "x"
    with pytest.raises(ReadModelsUnavailable, match=next(iter(changed))):
        database.parsed(TABLES[kind].of.stored, json.dumps(state | changed))
