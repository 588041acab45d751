"""What a VM costs in Postgres does not grow with the VMs before it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

from eventstore.log.envelope import Recorded, Ref
from projections import bulk, copies, database
from projections.books import MODELS, judged
from projections.model import Row
from projections.transaction import apply
from runtime.local.servers import Postgres
from tests.conftest import fresh_database
from tests.history.test_history import HERE
from tests.projections.golden_rows import FixedSecrets, messages

#: VMs of a part, and events of a batch.
VMS, BATCH = 12, 7


def history(story: str, number: int) -> list[Recorded]:
    """A golden history of a VM, as that of another VM."""

    def rename(id_: str) -> str:
        return str(uuid5(UUID(id_), str(number)))

    return list(messages(HERE / f"{story}.jsonl", rename))


async def test_the_rows_that_a_vm_reads_do_not_grow_with_the_vms(postgres: Postgres) -> None:
    """VMs that live on, all of one project, without statistics of the tables."""

    async def park(malformed: Sequence[object]) -> None:
        assert not malformed

    async with await database.connect(await fresh_database(postgres), "test", "slope") as conn:
        await copies.make(conn, MODELS, "slope")
        for model in MODELS:
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
                        known = await apply(conn, FixedSecrets(), position, batch, MODELS, park=park, known=known)
                        position += len(batch)
                after = await read_rows(conn)
                parts.append({table: after[table] - before[table] for table in after})
        first, last = parts[1], parts[-1]
        assert sum(first.values()) > 0
        assert {table: (first[table], rows) for table, rows in last.items() if rows > first[table] + VMS} == {}


async def read_rows(conn: database.Connection) -> dict[str, int]:
    """The number of rows that were read of each table so far, by an index or without one."""
    await conn.execute("SELECT pg_stat_force_next_flush()")
    cursor = await conn.execute(
        """SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS rows FROM pg_stat_user_tables
           WHERE schemaname = current_schema() AND relname NOT IN ('checkpoint', 'schema_version')"""
    )
    return {row["relname"]: row["rows"] for row in await cursor.fetchall()}
