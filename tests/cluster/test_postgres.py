"""A Postgres with a standby: when the primary dies, the standby is promoted, and the same DSN leads to it."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from bench import homes
from cli.local.cluster.network import addresses
from cli.local.cluster.postgres import Pair, pair
from runtime.local.servers import PostgresRole
from tests.waiting import eventually


@pytest.fixture
async def two() -> AsyncIterator[Pair]:
    with homes.home("standby") as home:  # the user of Postgres has to enter it
        for name in ("hosts", "log"):
            (home / name).mkdir(mode=0o755)
        made = pair(home, list(addresses(["a", "b"]).hosts))
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


async def numbers(dsn: str) -> list[int]:
    try:
        async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=3) as session:
            rows = await (await session.execute("SELECT number FROM kept ORDER BY number")).fetchall()
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return []
    return [number for (number,) in rows]


async def write(dsn: str, number: int) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=3) as session:
        await session.execute("CREATE SCHEMA IF NOT EXISTS nebula")
        await session.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        await session.execute("INSERT INTO kept VALUES (%s)", [number])


async def test_a_promoted_standby_is_found_and_the_old_primary_becomes_a_copy(two: Pair) -> None:
    dsn = two.dsn(PostgresRole.PROJECTIONS) + "&options=-csearch_path%3Dnebula"
    only_read = two.running["b"].dsn_of("nebula", PostgresRole.PROJECTIONS) + "?options=-csearch_path%3Dnebula"
    await write(dsn, 1)

    async def copied() -> bool:
        return await numbers(only_read) == [1]

    await eventually(copied, "the standby has what was committed")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await write(only_read, 2)
    await two.running["a"].kill()
    with pytest.raises(psycopg.OperationalError):
        await write(dsn, 2)
    await two.promote()
    await write(dsn, 2)
    assert await numbers(dsn) == [1, 2]
    await two.copy()
    assert two.primary == "b"
    again = two.running["a"].dsn_of("nebula", PostgresRole.PROJECTIONS) + "?options=-csearch_path%3Dnebula"

    async def copied_back() -> bool:
        return await numbers(again) == [1, 2]

    await eventually(copied_back, "the old primary is a copy of the new one")


def test_files_of_the_servers_belong_to_their_user(two: Pair) -> None:
    if os.geteuid() == 0:
        assert all((Path(one.home) / "postgres").stat().st_uid != 0 for one in two.running.values())
