"""Counts of blocks: marks with them are those that are counted event by event, whatever the batches were."""

import random

import pytest

from eventstore.log.envelope import Recorded
from projections import bulk, event_times, marks, transaction
from projections.books import MODELS
from projections.database import fetch
from projections.event_times import EventTimes
from projections.marks import Mark, Scope
from projections.past import counts
from projections.past.models import PAST_MODELS
from runtime.local.servers import Postgres
from tests.projections.test_batches import log
from tests.projections.test_past import Both, apply_all, both

BLOCK = 5
FAILURES = ("nebula.vm.VmFailed", "nebula.image.ImageFailed")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (marks, counts, event_times):
        monkeypatch.setattr(module, "WIDTH", BLOCK)


async def applied(made: Both, recorded: list[Recorded], behind: int, chance: random.Random) -> None:
    """Apply a log in any batches; the past is some messages behind."""
    await apply_all(made.present, MODELS, recorded, [])
    end = len(recorded) - behind
    await apply_all(made.past, PAST_MODELS, recorded[:end], sorted(chance.sample(range(1, end), 12)))


@pytest.mark.parametrize(("seed", "behind"), [(0, 0), (1, 7), (2, 3)])
async def test_marks_are_the_same_with_and_without_them(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, seed: int, behind: int
) -> None:
    recorded, chance = log(seed), random.Random(seed)
    monkeypatch.setattr(bulk, "COPIED", 4)
    monkeypatch.setattr(transaction, "KEPT", 4)
    async with both(postgres) as made:
        await applied(made, recorded, behind, chance)
        owners = [row["owner"] for row in (await fetch(made.pool, "SELECT DISTINCT owner FROM events", {})).rows]
        end, helped = len(recorded), 0
        for _ in range(150):
            first, last = sorted(chance.choices(range(1, end + 1), k=2))
            some = tuple(chance.sample(owners, 3))
            scope = chance.choice([Scope(None, None, None), Scope(some[0], None, None), Scope(None, None, some)])
            width = chance.choice([1, BLOCK, 2 * BLOCK, 10 * BLOCK, end * BLOCK])
            known = await marks.counted(made.past_pool, scope, first, last, width)
            helped += known is not None
            found, _ = await marks.marks(made.pool, scope, first, last, width, FAILURES, known)
            assert found == await one_by_one(made, scope, first, last, width), (scope, first, last, width, known)
        assert helped > 50
        whole = await marks.counted(made.past_pool, Scope(None, None, None), 1, end, BLOCK)
        assert whole is not None
        assert (whole.low, whole.high) == (1, (end - behind) // BLOCK * BLOCK)
        for other in (Scope(None, "vm", None), Scope(None, None, some, ((some[0], 3),))):
            assert await marks.counted(made.past_pool, other, 1, end, BLOCK) is None
        times = [row["time"] for row in (await fetch(made.pool, "SELECT time FROM events", {})).rows]
        without, with_blocks = EventTimes(), EventTimes()
        for _ in range(20):
            since, until = sorted(chance.choices(times, k=2))
            expected = await without.positions(made.pool, since, until)
            assert await with_blocks.positions(made.pool, since, until, made.past_pool) == expected
        assert (with_blocks._least, with_blocks._greatest) == (without._least, without._greatest)


async def one_by_one(made: Both, scope: Scope, first: int, last: int, width: int) -> list[Mark]:
    """The same, by a look at each event."""
    rows = (await fetch(made.pool, "SELECT position, owner, type, time FROM events", {}, order="position")).rows
    found: dict[int, Mark] = {}
    for row in rows:
        seen = scope.project in (None, row["owner"]) and (scope.mine is None or row["owner"] in scope.mine)
        if not seen or not first <= row["position"] <= last:
            continue
        number = (row["position"] - 1) // width
        mark = found.get(number, Mark(number, 0, 0, row["position"], row["time"]))
        found[number] = mark._replace(events=mark.events + 1, failures=mark.failures + (row["type"] in FAILURES))
    return [found[number] for number in sorted(found)]
