"""The position that gateways wait for is what the read models say, whatever anybody says in their name."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import psycopg
import pytest

from projections import copies, database
from projections.books import MODELS
from projections.position import Position, listen
from runtime.local.servers import Postgres
from runtime.tasks.patience import CannotRun
from tests.conftest import fresh_database
from tests.gate import gate
from tests.waiting import eventually


@pytest.fixture
async def dsn(postgres: Postgres) -> AsyncIterator[str]:
    """Read models of a log of two events."""
    dsn = await fresh_database(postgres)
    async with await database.connect(dsn, "tests") as conn:
        await copies.make(conn, MODELS, database.SCHEMA)
        await conn.execute("UPDATE checkpoint SET position = 2")
    yield dsn


@pytest.mark.parametrize("lie", ["", "nonsense", "-1", "9" * 18, "9" * 5000, "٣", "0x10", "1e9"])
async def test_a_notice_is_not_believed(lie: str, dsn: str) -> None:
    position = Position()
    listening = asyncio.create_task(listen(dsn, position))
    try:
        assert await position.reach(2, 60)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as anybody:
            await anybody.execute("SELECT pg_notify('nebula_position', %s)", [lie])
            await anybody.execute("UPDATE nebula.checkpoint SET position = 3")
            await anybody.execute("SELECT pg_notify('nebula_position', '3')")
        await eventually(lambda: position.value >= 3 or listening.done(), "it goes on")
        assert position.value == 3
        assert not listening.done()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_notifications_that_nobody_waits_for_share_a_query(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.position.UNAWAITED", 3600.0)
    position, queries, checkpoint = Position(), 0, database.checkpoint

    async def counted(conn: database.Connection) -> int:
        nonlocal queries
        queries += 1
        return await checkpoint(conn)

    monkeypatch.setattr(database, "checkpoint", counted)
    listening = asyncio.create_task(listen(dsn, position))
    try:
        assert await position.reach(2, 60)
        before = queries
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as writer:
            for reached in range(3, 53):
                await writer.execute("UPDATE nebula.checkpoint SET position = %s", [reached])
                await writer.execute("SELECT pg_notify('nebula_position', '')")
        assert await position.reach(52, 60)  # who waits does not wait for the pause
        assert queries - before < 10
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_who_was_known_once_is_waited_for(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway decides commands without read models: a password that was changed meanwhile does not end it."""
    position, tries = Position(), 0

    async def refused(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise CannotRun("refused")

    with monkeypatch.context() as patched:
        patched.setattr(database, "connected", refused)
        with pytest.raises(CannotRun):
            await listen(dsn, Position())
    listening = asyncio.create_task(listen(dsn, position))
    try:
        assert await position.reach(2, 60)
        monkeypatch.setattr("projections.position.RETRY_SECONDS", 0.01)
        with monkeypatch.context() as patched:
            patched.setattr(database, "connected", refused)
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as anybody:
                await anybody.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'nebula-position'"
                )
                await eventually(lambda: tries >= 3, "it tries again")
                await anybody.execute("UPDATE nebula.checkpoint SET position = 3")
        assert await position.reach(3, 60)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_it_goes_on_after_an_answer_that_broke_off(dsn: str) -> None:
    there = urlsplit(dsn)
    async with gate(there.port or 5432) as way:
        await way.open()
        port = there.netloc.rpartition(":")[0] + f":{way.port}"
        position = Position()
        listening = asyncio.create_task(listen(there._replace(netloc=port).geturl(), position))
        try:
            assert await position.reach(2, 60)
            async with await psycopg.AsyncConnection.connect(dsn) as holder:
                await holder.execute("UPDATE nebula.checkpoint SET position = 3")
                await holder.execute("LOCK TABLE nebula.checkpoint IN ACCESS EXCLUSIVE MODE")
                async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as anybody:
                    await anybody.execute("SELECT pg_notify('nebula_position', '')")
                waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'nebula.checkpoint'::regclass"

                async def asks() -> bool:
                    return await (await holder.execute(waits)).fetchone() is not None

                await eventually(asks, "it asks for the position")
                way.say(b"\xff" * 8)
            await eventually(lambda: position.value == 3 or listening.done(), "it goes on")
            assert not listening.done()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
