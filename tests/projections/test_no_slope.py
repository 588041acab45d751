"""What a VM costs in Postgres does not grow with the VMs before it, nor the table with the changes of VMs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

import pytest

from eventstore.log.envelope import Recorded, Ref
from projections import bulk, copies, database
from projections.books import MODELS, judged
from projections.model import ReadModel, Row
from projections.past.models import PAST_MODELS
from projections.transaction import apply
from projections.vms import VMS as VM_TABLE
from runtime.local.servers import Postgres
from tests.conftest import fresh_database
from tests.history.test_history import HERE
from tests.projections.golden_rows import FixedSecrets, messages

#: VMs of a part, and events of a batch.
VMS, BATCH = 12, 7
#: Bytes of a value from which on a column has no statistics.
LONG = 128


def history(story: str, number: int) -> list[Recorded]:
    """A golden history of a VM, as that of another VM."""

    def rename(id_: str) -> str:
        return str(uuid5(UUID(id_), str(number)))

    return list(messages(HERE / f"{story}.jsonl", rename))


@pytest.mark.parametrize("models", [MODELS, PAST_MODELS], ids=["present", "past"])
async def test_the_rows_that_a_vm_reads_do_not_grow_with_the_vms(
    postgres: Postgres, models: Sequence[ReadModel[Any, Any]]
) -> None:
    """VMs that live on, all of one project, without statistics of the tables."""

    async def park(malformed: Sequence[object]) -> None:
        assert not malformed

    async with await database.connect(await fresh_database(postgres), "test", "slope") as conn:
        await copies.make(conn, models, "slope")
        for model in models:
            for table in model.tables:
                await conn.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
        known: Mapping[Ref, Row[Any]] = {}
        parts, position = list[dict[str, int]](), 0
        async with bulk.by_key(conn):
            for part in range(6):
                before = await read_rows(conn)
                for number in range(part * VMS, (part + 1) * VMS):
                    events = history("vm-1-rich", number)[:20]
                    for start in range(0, len(events), BATCH):
                        batch = [
                            judged(replace(each, position=position + place))
                            for place, each in enumerate(events[start : start + BATCH], start=1)
                        ]
                        known = await apply(conn, FixedSecrets(), position, batch, models, park=park, known=known)
                        position += len(batch)
                after = await read_rows(conn)
                parts.append({table: after[table] - before[table] for table in after})
        first, last = parts[1], parts[-1]
        assert sum(first.values()) > 0
        assert {table: (first[table], rows) for table, rows in last.items() if rows > first[table] + VMS} == {}


async def test_the_table_of_vms_does_not_grow_with_their_changes(postgres: Postgres) -> None:
    """Rows of more than half a page, as those of VMs that many nodes were considered for; without vacuum."""
    columns = VM_TABLE.rows.types
    text = json.dumps({"considered": [{"node": f"node-{n}", "reason": "has less free memory"} for n in range(40)]})
    async with await database.connect(await fresh_database(postgres), "test", "slope") as conn:
        await copies.make(conn, [VM_TABLE.read_model], "slope")
        await conn.execute("ALTER TABLE vms SET (autovacuum_enabled = off)")
        for change in range(12):
            of_type: dict[str, object] = {
                "text": "ready",
                "text[]": [],
                "boolean": False,
                "json": text,
                "int": change,
                "bigint": change,
            }
            for vm in range(0, 60, 20):
                rows = [[of_type[of] for of in columns.values()] for _ in range(20)]
                for number, row in enumerate(rows, start=vm):
                    row[list(columns).index("id")] = str(uuid5(UUID(int=0), str(number)))
                    row[list(columns).index("shown")] = text
                    row[list(columns).index("phase")] = f"phase {change}"
                await bulk.put(conn, VM_TABLE.rows, rows)
        found = await (await conn.execute("SELECT pg_relation_size('vms') / 8192 AS pages")).fetchone()
    assert found is not None
    assert found["pages"] <= 60


async def test_postgres_gathers_no_statistics_of_long_texts(postgres: Postgres) -> None:
    """No query searches them, and to sort them takes longer than to write the rows."""

    async def park(malformed: Sequence[object]) -> None:
        assert not malformed

    async with await database.connect(await fresh_database(postgres), "test", "statistics") as conn:
        for models in (MODELS, PAST_MODELS):
            await copies.make(conn, models, "statistics")
            batch = [judged(each) for each in history("vm-1-rich", 1)]
            await apply(conn, FixedSecrets(), 0, batch, models, park=park)
            await conn.execute("ANALYZE")
            cursor = await conn.execute(
                "SELECT tablename, attname, avg_width FROM pg_stats WHERE schemaname = current_schema()"
            )
            widths = {(row["tablename"], row["attname"]): row["avg_width"] for row in await cursor.fetchall()}
            assert len(widths) > 20
            assert {column: width for column, width in widths.items() if width > LONG} == {}


async def read_rows(conn: database.Connection) -> dict[str, int]:
    """The number of rows that were read of each table so far, by an index or without one."""
    await conn.execute("SELECT pg_stat_force_next_flush()")
    cursor = await conn.execute(
        """SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS rows FROM pg_stat_user_tables
           WHERE schemaname = current_schema() AND relname NOT IN ('checkpoint', 'schema_version')"""
    )
    return {row["relname"]: row["rows"] for row in await cursor.fetchall()}
