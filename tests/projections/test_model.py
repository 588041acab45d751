"""A read model is a value: whoever adds one to the list has all that others have."""

from collections.abc import Mapping

from domain.vm import Phase, Vm
from eventstore.log.envelope import Ref
from projections import database, rebuild
from projections.books import MODELS
from projections.compare import Difference
from projections.database import SCHEMA
from projections.model import Batch, ReadModel, Session, Step, changes
from projections.shelf import Shelf
from tests.projections.cloud import Cloud
from tests.projections.test_upgrade import is_stored, made, running, sound  # noqa: F401  (a fixture)
from tests.waiting import eventually


async def load(conn: database.Connection, batch: Batch) -> dict[Ref, int | None]:
    cursor = await conn.execute("SELECT * FROM promised WHERE vm = ANY (%s)", [[ref.id for ref in batch.states("vm")]])
    return {Ref(row["project"], "vm", row["vm"]): row["vcpus"] for row in await cursor.fetchall()}


def fold(held: dict[Ref, int | None], step: Step[Vm]) -> None:
    vm = step.row.state if step.row else None
    if vm is not None:
        held[step.recorded.ref] = vm.spec.vcpus if vm.node and vm.phase is not Phase.DELETED else None


async def save(session: Session, before: Mapping[Ref, int | None], after: Mapping[Ref, int | None]) -> None:
    for ref, vcpus in changes(before, after).items():
        await session.conn.execute("DELETE FROM promised WHERE vm = %s", [ref.id])
        if vcpus is not None:
            await session.conn.execute("INSERT INTO promised VALUES (%s, %s, %s)", [ref.project, ref.id, vcpus])


PROMISED = ReadModel(
    name="promised",
    version=1,
    ddl="CREATE TABLE promised (project text, vm text PRIMARY KEY, vcpus int NOT NULL);",
    tables=("promised",),
    kinds=("vm",),
    load=load,
    fold=fold,
    save=save,
)


async def test_a_read_model_that_is_added_needs_its_value_alone(
    made: Cloud,  # noqa: F811
) -> None:
    """It is made from the log beside the live ones, follows it from there on, and is proved with the others."""
    more = (*MODELS, PROMISED)
    async with running(made, more, made.position):
        await eventually(is_stored(made, more), "it is live")
        second = await made.running()
        await made.caught_up()
        async with await database.connect(made.dsn, "test") as conn:
            assert len(await (await conn.execute("SELECT * FROM promised")).fetchall()) == 2
            await sound(made, more)
            await conn.execute("UPDATE promised SET vcpus = 7 WHERE vm = %s", [second.id])
        (table,) = (await rebuild.verify(made.nc, made.dsn, made.vault, shelf=Shelf(SCHEMA, more))).tables
        assert (table.table, table.rows) == ("promised", [Difference({"vm": second.id}, "differs", ("vcpus",))])
