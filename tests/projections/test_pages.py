"""Pages of lists: what they consist of, and what they cost."""

from pathlib import Path

from pydantic_core import to_json

from eventstore.log.envelope import Ref
from projections import aggregates, database, pages
from projections.vms import VMS
from runtime.local.servers import Postgres
from tests.projections.cloud import projected


async def test_items_are_those_of_single_reads_also_with_rows_of_an_earlier_version(
    tmp_path: Path, postgres: Postgres
) -> None:
    async with projected(tmp_path, postgres) as (cloud, pool):
        refs: list[Ref] = [await cloud.running(labels={"a": 'b"\\u0000\N{GRINNING FACE}'}) for _ in range(3)]
        await cloud.caught_up()
        expected = []
        for ref in refs:
            found, _ = await aggregates.get(pool, VMS, ref, mine=None)
            assert found is not None
            expected.append(to_json(VMS.shown(found)).decode())
        for column in (True, False):
            first = await pages.matching(pool, VMS, {"project": "default"}, 0, 2, mine=None)
            assert first.texts == expected[:2]
            assert first.next is not None
            rest = await pages.matching(pool, VMS, {"project": "default"}, first.next, 2, mine=None)
            assert (rest.texts, rest.next) == (expected[2:], None)
            assert [item["id"] for item in rest.items] == [refs[2].id]
            if column:
                async with await database.connect(cloud.dsn, "test") as conn:
                    await conn.execute("ALTER TABLE vms DROP COLUMN shown")


async def test_postgres_compiles_no_query(postgres: Postgres) -> None:
    """It took 20 ms for each page, because a table without statistics seemed to be large."""
    async with await database.connect(postgres.dsn, "test") as conn:
        cursor = await conn.execute("SHOW jit")
        assert await cursor.fetchone() == {"jit": "off"}
