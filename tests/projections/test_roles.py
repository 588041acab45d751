"""What each role may do in Postgres: the gateway reads, projections own the read models, nobody is a superuser."""

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from domain import project
from eventstore.log.envelope import Ref
from projections import copies, database, rebuild
from projections.books import MODELS
from projections.past.models import PAST
from projections.position import Position, listen
from runtime.local.servers import POSTGRES_ROLES, Postgres, PostgresRole, create_database, set_up_roles
from tests.projections.cloud import cloud
from tests.projections.test_upgrade import NEW, is_stored, running
from tests.waiting import eventually

GATEWAY, PROJECTIONS = PostgresRole.GATEWAY, PostgresRole.PROJECTIONS


async def may_read(pool: database.Pool, table: str) -> bool:
    try:
        await database.fetch(pool, f"SELECT * FROM {table}", {})
    except database.NotGranted:
        return False
    return True


async def test_the_gateway_reads_what_projections_own_over_a_new_version(tmp_path: Path, postgres: Postgres) -> None:
    """Begun on read models that an administrator made, as before there were roles."""
    async with cloud(tmp_path, postgres) as made:
        await made.furnish()
        async with running(made, MODELS, made.position):
            await made.caught_up()
        name = made.dsn.rpartition("/")[2]
        for _ in range(2):
            await set_up_roles(postgres, name)
        async with await database.connect(made.dsn, "test") as conn:  # the server knew the role already
            await conn.execute("REVOKE ALL ON ALL TABLES IN SCHEMA nebula FROM nebula_gateway")

        owned = replace(made, dsn=postgres.dsn_of(name, PROJECTIONS))
        seen, pool = Position(), database.pool(postgres.dsn_of(name, GATEWAY), "gateway")
        listening = asyncio.create_task(listen(postgres.dsn_of(name, GATEWAY), seen))
        await pool.open()
        try:
            assert not await may_read(pool, "projects"), "projections have not run since"
            async with running(owned, MODELS, owned.position):
                await eventually(lambda: may_read(pool, "projects"), "the gateway may read what it serves")
            old = await database.fetch(pool, "SELECT id FROM projects", {})
            async with running(owned, NEW, owned.position):
                await eventually(is_stored(owned, NEW), "the new version is live")
                later = project.CreateProject(**made.asked(project="later", name="Later"))
                await made.do(Ref("later", "project", "later"), later)
                end = await made.store.last_position()
                await eventually(lambda: seen.value >= end, "the gateway hears of the new position")
            new = await database.fetch(pool, "SELECT id FROM projects", {})
            assert {row["id"] for row in new.rows} == {row["id"] for row in old.rows} | {"later"}
            assert not await may_read(pool, "seeds")
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await pool.close()

        await rebuild.rebuild(owned.nc, owned.dsn, owned.vault)
        assert (await rebuild.verify(owned.nc, owned.dsn, owned.vault)).differing == ()


SERVED = {
    *("projects", "tags", "images", "flavors", "nodes", "enrollments", "vms", "users", "service_accounts", "tokens"),
    *("operations", "events", "usage", "checkpoint"),
}


@pytest.mark.parametrize("over", ["made now", "made by an earlier program"])
async def test_the_gateway_reads_what_it_serves_and_no_other_table(
    readable: dict[PostgresRole, str], over: str
) -> None:
    if over != "made now":
        async with await database.connect(readable[PROJECTIONS], "test") as conn:
            await conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA nebula TO nebula_gateway")
            await copies.grant(conn, MODELS, database.SCHEMA)
    found: dict[str, bool] = {}
    async with await database.connect(readable[GATEWAY], "test") as conn:
        cursor = await conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'nebula'")
        for row in await cursor.fetchall():
            try:
                await conn.execute(f"SELECT * FROM {row['tablename']}".encode())
                found[row["tablename"]] = True
            except errors.InsufficientPrivilege:
                found[row["tablename"]] = False
    assert {table for table, may in found.items() if may} == SERVED
    assert found.keys() - SERVED == {"seeds", "seed_secrets", "tips", "reservations", "schema_version"}


OF_THE_PAST = {table for model in PAST.models if model.served for table in model.tables} | {"checkpoint"}


async def test_of_the_past_the_gateway_reads_what_it_serves(readable: dict[PostgresRole, str]) -> None:
    found: dict[str, bool] = {}
    async with await database.connect(readable[PROJECTIONS], "test", PAST.schema) as conn:
        await copies.make(conn, PAST.models, PAST.schema)
    async with await database.connect(readable[GATEWAY], "test", PAST.schema) as conn:
        for table in PAST.tables:
            try:
                await conn.execute(f"SELECT * FROM {table}".encode())
                found[table] = True
            except errors.InsufficientPrivilege:
                found[table] = False
    assert {table for table, may in found.items() if may} == OF_THE_PAST
    assert found.keys() - OF_THE_PAST == {"reservations", "schema_version"}


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (GATEWAY, "SELECT count(secret_hash) FROM nebula.seed_secrets"),
        (GATEWAY, "TABLE nebula.seeds"),
        (GATEWAY, "UPDATE nebula.vms SET name = 'x'"),
        (GATEWAY, "DELETE FROM nebula.checkpoint"),
        (GATEWAY, "DROP SCHEMA nebula CASCADE"),
        (GATEWAY, "CREATE SCHEMA mine"),
        (GATEWAY, "CREATE TABLE public.mine (a int)"),
        (GATEWAY, "CREATE TEMPORARY TABLE mine (a int)"),
        (GATEWAY, "SET ROLE nebula_projections"),
        (GATEWAY, "SET ROLE nebula"),
        *(
            (role, statement)
            for role in PostgresRole
            for statement in (
                "COPY (SELECT 1) TO PROGRAM 'cat'",
                "COPY (SELECT 1) TO '/var/tmp/nebula-stolen'",
                "SELECT pg_read_file('PG_VERSION')",
                "SELECT rolpassword FROM pg_authid",
                "CREATE ROLE other SUPERUSER",
                "CREATE DATABASE other",
                "ALTER SYSTEM SET work_mem = '1MB'",
            )
        ),
    ],
)
def test_more_than_its_work_is_refused(readable: dict[PostgresRole, str], role: PostgresRole, statement: str) -> None:
    with (
        psycopg.connect(readable[role], autocommit=True) as session,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        session.execute(statement.encode())


@pytest.mark.parametrize("role", PostgresRole)
@pytest.mark.parametrize("other", ["postgres", "template1"])
def test_other_databases_are_closed(readable: dict[PostgresRole, str], role: PostgresRole, other: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(readable[role].rpartition("/")[0] + f"/{other}")


def test_none_of_our_roles_is_a_superuser(readable: dict[PostgresRole, str]) -> None:
    with psycopg.connect(readable[GATEWAY]) as session:
        rows = session.execute(
            """SELECT rolname FROM pg_roles
               WHERE rolname LIKE 'nebula\\_%' AND NOT (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication)"""
        ).fetchall()
        members = session.execute("SELECT FROM pg_auth_members WHERE member::regrole::text LIKE 'nebula%'").fetchall()
    assert {row[0] for row in rows} == set(PostgresRole)
    assert members == []


def test_a_password_that_is_not_set_is_in_no_error_and_no_log(
    readable: dict[PostgresRole, str], postgres: Postgres
) -> None:
    log = postgres.child.log
    before = log.stat().st_size
    with psycopg.connect(readable[PROJECTIONS]) as session:
        for role in PostgresRole:
            setting = f"nebula.{role.removeprefix('nebula_')}_password"
            session.execute("SELECT set_config(%s, 'hunter2', true)", [setting])
        with pytest.raises(errors.InsufficientPrivilege, match="did not get its rights and password") as refused:
            session.execute(POSTGRES_ROLES.read_bytes())
    assert "hunter2" not in str(refused.value)
    written = log.read_bytes()[before:]
    assert b"did not get its rights and password" in written
    assert b"hunter2" not in written


def test_passwords_are_for_their_owner_only(postgres: Postgres) -> None:
    files = sorted(postgres.home.glob("postgres*.password"))
    assert [file.name for file in files] == [
        "postgres.gateway.password",
        "postgres.password",
        "postgres.projections.password",
    ]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert len({file.read_text() for file in files}) == 3


@pytest.fixture(scope="module")
async def readable(postgres: Postgres) -> dict[PostgresRole, str]:
    """Empty read models that projections made; where they are for each role."""
    name = f"test_{uuid4().hex}"
    await create_database(postgres, name)
    await set_up_roles(postgres, name)
    dsns = {role: postgres.dsn_of(name, role) for role in PostgresRole}
    async with await database.connect(dsns[PROJECTIONS], "test") as conn:
        await copies.make(conn, MODELS, database.SCHEMA)
    return dsns
