"""Proving the read models: every column of every table is compared, and what differs is named."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg import sql

from cli.commands.views import lines
from domain import vm
from domain.base import Resources
from domain.contract import Power
from domain.enrollment import IssueJoinToken
from domain.flavor import CreateFlavor
from domain.node import Reserve
from domain.service_account import CreateServiceAccount
from domain.tag import CreateTag
from domain.token import IssueToken
from domain.user import CreateUser
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import Change, Tip
from projections import compare, copies, database, rebuild
from projections.books import MODELS
from projections.compare import Difference, shapes
from projections.database import SCHEMA, Pool
from projections.position import Position
from projections.runner import Runner
from projections.shelf import NOW
from runtime.local.servers import Postgres
from tests.domain.story import uid
from tests.event_keys import put_keys
from tests.eventstore.log import noted
from tests.projections.cloud import SSH_KEY, Cloud, projected

Made = tuple[Cloud, Pool]
HASH = "0" * 64

#: Another value of a type.
OTHER = {
    "text": "'other'",
    "integer": "{} + 1",
    "bigint": "coalesce({}, 0) + 1",
    "boolean": "NOT {}",
    "json": "'{{\"other\": 1}}'",
    "text[]": "'{{other}}'",
    "bytea": "'other'",
    "timestamp with time zone": "'2001-02-03T04:05:06Z'",
}


@pytest.fixture(scope="module")
async def made(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[Made]:
    async with projected(tmp_path_factory.mktemp("verify"), postgres) as both:
        cloud, _ = both
        await cloud.running(ssh_keys=(SSH_KEY,), labels={"environment": "a", "team": "b"}, tags=("blue",))
        await cloud.do(*tag())
        promise = Reserve(node="host-1", vm=uid(1), resources=Resources(vcpus=1), at=datetime.now(UTC))
        await cloud.do(Ref("system", "node", "host-1"), promise)
        small = CreateFlavor(**cloud.asked(flavor="small", name="Small", vcpus=1, memory_mib=512, disk_gib=4))
        await cloud.do(Ref("system", "flavor", "small"), small)
        await cloud.do(Ref("system", "user", "alice"), CreateUser(**cloud.asked(user="alice", name="Alice")))
        robot = CreateServiceAccount(**cloud.asked(service_account="ci", name="CI"))
        await cloud.do(Ref("system", "service_account", "ci"), robot)
        token = IssueToken(
            **cloud.asked(token="a" * 12, digest=HASH, name="Laptop", principal="user:alice", incarnation=uid(1))
        )
        await cloud.do(Ref("system", "token", "a" * 12), token)
        joining = IssueJoinToken(**cloud.asked(enrollment="host-2", digest=HASH))
        await cloud.do(Ref("system", "enrollment", "host-2"), joining)
        begun = Change(Tip(Ref("system", "tag", "begun")), [noted("by nothing that a tag knows")])
        await cloud.store.append([begun], Context(actor="tester"))
        await cloud.caught_up()
        yield both


def tag() -> tuple[Any, Any]:
    asked = {"at": datetime.now(UTC), "operation": uid(99), "fingerprint": "f"}
    return Ref("system", "tag", "blue"), CreateTag(**asked, tag="blue", name="Blue")


async def verified(cloud: Cloud) -> rebuild.Comparison:
    return await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault)


async def test_every_column_of_every_table_is_compared(made: Made) -> None:
    cloud, _ = made
    schema = "nebula_proof"
    async with (
        await database.connect(cloud.dsn, "test") as live,
        await database.connect(cloud.dsn, "test", schema) as replayed,
    ):
        await copies.make(replayed, MODELS, schema)
        await Runner(cloud.nc, cloud.dsn, cloud.vault, Position()).follow(replayed, await cloud.caught_up())
        assert await compare.differing(live, SCHEMA, replayed, schema) == []
        there = await shapes(live, SCHEMA)
        assert set(there) == set(NOW.tables)
        for table, shape in there.items():
            for column, type_ in shape.columns.items():
                if (table, column) == ("checkpoint", "one"):
                    continue  # a constant, which Postgres itself checks
                name = sql.Identifier(column)
                other = sql.SQL(OTHER[type_]).format(name)
                change = sql.SQL("UPDATE {} SET {} = {}").format(sql.Identifier(table), name, other)
                row = sql.SQL("{} WHERE ctid = (SELECT max(ctid) FROM {})").format(change, sql.Identifier(table))
                async with live.transaction(force_rollback=True):
                    await live.execute(row)
                    (found,) = await compare.differing(live, SCHEMA, replayed, schema, [table])
                whats = [each.what for each in found.rows]
                if column in shape.key:
                    assert sorted(whats) == ["extra", "missing"], (table, column)
                else:
                    assert whats == ["differs"], (table, column)
                    assert found.rows[0].columns == (column,), (table, column)
                    assert set(found.rows[0].key) == set(shape.key)
        await copies.drop(replayed, schema)


async def test_an_edited_seed_is_named(made: Made) -> None:
    cloud, _ = made
    async with await database.connect(cloud.dsn, "test") as conn:
        before = await (await conn.execute("SELECT vm, ssh_keys FROM seeds")).fetchone()
        assert before is not None
        await conn.execute("UPDATE seeds SET ssh_keys = '{ssh-ed25519 AAAA}'")
        found = await verified(cloud)
        assert found.differing == ("seeds",)
        (row,) = found.tables[0].rows
        assert row == Difference({"project": "default", "vm": before["vm"]}, "differs", ("ssh_keys",))
        said = "\n".join(lines(found))
        assert f'vm="{before["vm"]}": differs in ssh_keys' in said
        await conn.execute("UPDATE seeds SET ssh_keys = %s", [before["ssh_keys"]])
    assert (await verified(cloud)).differing == ()


async def test_rows_beyond_the_most_are_counted(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, _ = made
    monkeypatch.setattr(compare, "MOST", 2)
    async with await database.connect(cloud.dsn, "test") as conn:
        await conn.execute(
            "INSERT INTO operations SELECT 'x' || n, n, '', '', '', '', '{}', '' FROM generate_series(1, 5) n"
        )
        found = await verified(cloud)
        await conn.execute("DELETE FROM operations WHERE id LIKE 'x%'")
    (table,) = found.tables
    assert (table.table, table.count, [row.what for row in table.rows]) == ("operations", 5, ["extra", "extra"])
    assert list(lines(found))[-1] == "  and 3 more"


async def test_missing_rows_are_named(made: Made) -> None:
    cloud, _ = made
    async with await database.connect(cloud.dsn, "test") as conn:
        await conn.execute("CREATE TEMP TABLE kept AS SELECT * FROM seed_secrets")
        await conn.execute("DELETE FROM seed_secrets")
        found = await verified(cloud)
        await conn.execute("INSERT INTO seed_secrets SELECT * FROM kept")
    assert [(each.table, each.count, each.rows[0].what) for each in found.tables] == [("seed_secrets", 1, "missing")]


async def test_a_checkpoint_beyond_the_log_is_named(made: Made) -> None:
    cloud, _ = made
    end = await cloud.store.last_position()
    async with await database.connect(cloud.dsn, "test") as conn:
        await conn.execute("UPDATE checkpoint SET position = position + 1000")
        found = await verified(cloud)
        await conn.execute("UPDATE checkpoint SET position = %s", [end])
    assert [(each.table, each.rows[0].columns) for each in found.tables] == [("checkpoint", ("position",))]


async def test_a_missing_checkpoint_is_named(made: Made) -> None:
    cloud, _ = made
    end = await cloud.store.last_position()
    async with await database.connect(cloud.dsn, "test") as conn:
        await conn.execute("DELETE FROM checkpoint")
        found = await verified(cloud)
        await conn.execute("INSERT INTO checkpoint (position) VALUES (%s)", [end])
    assert [(each.table, each.rows[0].what) for each in found.tables] == [("checkpoint", "missing")]


async def test_another_schema_version_is_named(made: Made) -> None:
    cloud, _ = made
    async with await database.connect(cloud.dsn, "test") as conn:
        await conn.execute("UPDATE schema_version SET version = version + 1 WHERE model = 'vms'")
        found = await verified(cloud)
        await conn.execute("UPDATE schema_version SET version = version - 1 WHERE model = 'vms'")
    assert found.differing == ("schema_version",)
    assert [(row.key, row.columns) for row in found.tables[0].rows] == [({"model": "vms"}, ("version",))]


async def test_a_table_and_a_column_that_nobody_made_are_named(made: Made) -> None:
    cloud, _ = made
    async with await database.connect(cloud.dsn, "test") as conn:
        await conn.execute("CREATE TABLE stray (a int); ALTER TABLE tags ADD COLUMN colour text")
        found = await verified(cloud)
        await conn.execute("DROP TABLE stray; ALTER TABLE tags DROP COLUMN colour")
    assert [(each.table, each.columns) for each in found.tables] == [("tags", ("colour",)), ("stray", ("a",))]


async def test_destroyed_keys_are_no_difference(made: Made) -> None:
    cloud, _ = made
    ref = await cloud.running()
    await cloud.caught_up()
    await cloud.vault.destroy(ref.id)  # handlers do so before the log says that the VM is deleted
    assert (await verified(cloud)).differing == ()
    await cloud.ask(ref, vm.DeleteVm)  # what follows is folded without the key
    await cloud.caught_up()
    assert (await verified(cloud)).differing == ()
    await cloud.report(ref, Power.ABSENT)
    await cloud.caught_up()
    assert (await verified(cloud)).differing == ()


async def test_the_command_names_what_differs(made: Made) -> None:
    cloud, _ = made
    put_keys(cloud.home)
    env = {
        **os.environ,
        "NEBULA_NATS_URL": cloud.nats.url,
        "NEBULA_POSTGRES_DSN": cloud.dsn,
        "NEBULA_HOME": str(cloud.home),
    }

    async def nebula(*arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli.main", *arguments, env=env, stdout=-1, stderr=-1
        )
        out, error = await process.communicate()
        return process.returncode, out.decode(), error.decode()

    status, out, error = await nebula("verify", "views")
    assert (status, "as replayed" in out) == (0, True), error
    async with await database.connect(cloud.dsn, "test") as conn:
        await conn.execute("UPDATE nodes SET region = 'moon'")
        try:
            status, out, error = await nebula("verify", "views", "--output", "json")
        finally:
            await conn.execute("UPDATE nodes SET region = state -> 'info' ->> 'region'")
    assert status == 1
    assert "nebula rebuild" in error
    (table,) = json.loads(out)["tables"]
    assert table["rows"] == [{"key": {"project": "system", "id": "host-1"}, "what": "differs", "columns": ["region"]}]
