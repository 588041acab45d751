"""The library's contracts for applications and projections, unmodified, on a real server.

A view keeps its tracking beside its rows, in Postgres, while the application's events are in JetStream.
"""

import asyncio
import os
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.tests import application, projection
from psycopg.sql import SQL, Identifier

from runtime.local.servers import Postgres
from tests.conftest import fresh_database


class TestExampleApplication(application.ExampleApplicationTestCase):
    expected_factory_topic = "eventstore.library.recorder:JetStreamFactory"


class TestApplication(application.ApplicationTestCase):
    pass


def streams_of_their_own(*names: str) -> dict[str, str]:
    """Two applications in one environment: each needs a stream, so the names are set for each."""
    stream, prefix = os.environ["NATS_STREAM"], os.environ["NATS_SUBJECT_PREFIX"]
    settings: dict[str, str] = {}
    for name in names:
        settings[f"{name.upper()}_NATS_STREAM"] = f"{stream}_{name}"
        settings[f"{name.upper()}_NATS_SUBJECT_PREFIX"] = f"{prefix}.{name}"
    return settings


class TestEventSourcedProjection(projection.EventSourcedProjectionTestCase):
    env: ClassVar[dict[str, str]] = {}

    def setUp(self) -> None:
        self.env.update(streams_of_their_own("Application", "Counters"))


class PostgresEventCounters(PostgresTrackingRecorder, projection.EventCountersView):
    """Two counts and the position they are true for, in one transaction each time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counts = Identifier(self.datastore.schema, f"{self.tracking_table_name}_counts")
        self.sql_create_statements.append(
            SQL("CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, count bigint NOT NULL)").format(self.counts)
        )

    def get_created_event_counter(self) -> int:
        return self._count("created")

    def get_subsequent_event_counter(self) -> int:
        return self._count("subsequent")

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self._increment("created", tracking)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self._increment("subsequent", tracking)

    def _count(self, name: str) -> int:
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute(SQL("SELECT count FROM {} WHERE name = %s").format(self.counts), (name,))
            row = cursor.fetchone()
            return row["count"] if row else 0

    def _increment(self, name: str, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            upsert = "INSERT INTO {0} VALUES (%s, 1) ON CONFLICT (name) DO UPDATE SET count = {0}.count + 1"
            cursor.execute(SQL(upsert).format(self.counts), (name,))


class TestProjectionIntoPostgres(projection.AggregateEventCountersProjectionTestCase):
    view_class = PostgresEventCounters

    @pytest.fixture(autouse=True)
    def view_in_postgres(self, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
        dsn = urlsplit(asyncio.run(fresh_database(postgres)))
        for key, value in {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": dsn.path[1:],
            "POSTGRES_HOST": dsn.hostname,
            "POSTGRES_PORT": str(dsn.port),
            "POSTGRES_USER": dsn.username,
            "POSTGRES_PASSWORD": dsn.password,
        }.items():
            assert value is not None
            monkeypatch.setenv(f"EVENTCOUNTERS_{key}", value)
