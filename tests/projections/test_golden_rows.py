"""A read model whose rows change has a new version: else existing platforms would keep rows of the old meaning."""

from dataclasses import replace

import pytest

from projections.books import MODELS
from projections.past.models import PAST_MODELS
from projections.vms import VMS
from runtime.local.servers import Postgres
from tests.conftest import fresh_database
from tests.history.test_history import HERE
from tests.projections.golden_rows import faults, golden, of_all, stored

STORY = HERE / "vm-1-rich.jsonl"
WRITE = "golden_rows.json lacks a read model, a version or a history: run python -m tests.projections.golden_rows"


async def test_no_read_model_has_changed_without_its_version(postgres: Postgres) -> None:
    before, now = stored(), await of_all(await fresh_database(postgres))
    assert faults(before, now) == []
    assert now == before, WRITE


@pytest.mark.parametrize("what", ["table", "column", "state"])
async def test_a_forgotten_version_is_found(postgres: Postgres, what: str) -> None:
    """The tables, how a column follows from the state, and how the state follows from the events."""
    match what:
        case "table":
            changed = replace(VMS, ddl=VMS.ddl + "CREATE INDEX ON vms (phase);")
        case "column":
            changed = replace(VMS, columns={**VMS.columns, "name": lambda state: state.name.upper()})
        case _:
            kind = VMS.of
            changed = replace(VMS, of=replace(kind, deleted=lambda state: state.boots > 1))
    dsn = await fresh_database(postgres)
    before, now = [await golden(dsn, [table.read_model], [STORY]) for table in (VMS, changed)]
    assert [each for each in faults(before, now) if each.startswith("read model vms has changed")]
    now["vms"]["version"] += 1
    assert faults(before, now) == []


def test_a_lowered_version_is_found() -> None:
    now = stored()
    before = stored()
    before["vms"]["version"] += 1
    assert [each for each in faults(before, now) if "was lowered" in each] == faults(before, now) != []


def test_every_read_model_has_rows() -> None:
    """A read model without a golden row would be compared with nothing."""
    found = stored()
    assert all(found[model.name]["rows"] for model in (*MODELS, *PAST_MODELS))
