"""A server killed at any moment keeps its word; and the check that says so can tell when it does not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from domain.base import Event
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.store import Change, Tip
from tests.chaos.check import Check, compare
from tests.chaos.ledger import Entry, Ledger, entry
from tests.chaos.run import run
from tests.eventstore.log import CONTEXT, renamed
from tests.eventstore.model import ModelStore

KILLS = 25


async def test_a_server_killed_at_any_moment_keeps_its_word(tmp_path: Path) -> None:
    figures = await run(tmp_path, seed=1, kills=KILLS, writers=16)
    print(figures.document())
    assert figures.violations == []
    assert figures.acknowledged >= KILLS
    assert figures.refused
    assert figures.unknown
    assert all(figures.fed.values())


# ── logs that were doctored ─────────────────────────────────────────────────────────────────────────────────────────

Log = list[Recorded]
SINGLE, BATCH, REFUSED, PAIR = "single", "batch", "refused", "pair"


def named(mark: str, count: int) -> list[Event]:
    return [renamed(str(n)).model_copy(update={"operation": mark}) for n in range(count)]


async def honest() -> tuple[Ledger, Log]:
    """Four appends and what is left of them: positions 1; 2, 3, 4; none; 5, 6."""
    model, ledger = ModelStore(), Ledger()
    one, two = Tip(Ref("red", "project", "one")), Tip(Ref("red", "project", "two"))

    async def store(mark: str, tips: Sequence[Tip], count: int) -> list[Recorded]:
        attempt, changes = ledger.enter(mark, tips, lambda mark: named(mark, count))
        stored = await model.append(changes, CONTEXT)
        attempt.acknowledge(stored)
        return stored

    [first] = await store(SINGLE, [one], 1)
    ledger.enter(REFUSED, [one], lambda mark: named(mark, 1)).attempt.refused = True
    *_, last = await store(BATCH, [one.after(first)], 3)
    await store(PAIR, [one.after(last), two], 1)
    return ledger, model.log


def found(ledger: Ledger, log: Log) -> set[str]:
    check = Check(ledger)
    check.feed(log)
    return {violation.code for violation in check.violations()}


def moved(recorded: Recorded, position: int) -> Recorded:
    return replace(recorded, position=position)


def renumbered(log: Log) -> Log:
    return [moved(recorded, position) for position, recorded in enumerate(log, start=1)]


def with_header(recorded: Recorded, name: str, value: str) -> Recorded:
    return replace(recorded, headers={**recorded.headers, name: value})


async def late(log: Log) -> Log:
    """Behind the others, what was refused: on the newest tip, so that no chain disagrees."""
    model = ModelStore()
    model.log = list(log)
    tip = (await model.load(log[0].ref, lambda state, _: state)).tip
    await model.append([Change(tip, named(REFUSED, 1))], CONTEXT)
    return model.log


async def test_what_is_as_it_was_told_passes() -> None:
    assert found(*await honest()) == set()


@pytest.mark.parametrize(
    ("codes", "doctor"),
    [
        ({"lost"}, lambda log: log[1:]),
        ({"lost", "torn", "missing"}, lambda log: [*log[:2], *log[3:]]),
        ({"lost", "torn"}, lambda log: log[:-1]),
        ({"doubled", "version"}, lambda log: [*log, moved(log[0], 7)]),
        ({"doubled", "version"}, lambda log: [*log, *(moved(r, r.position + 5) for r in log[1:4])]),
        ({"position"}, lambda log: renumbered([*log[:4], log[5], log[4]])),
        ({"position", "scattered"}, lambda log: renumbered([*log[:3], log[5], log[3], log[4]])),
        ({"order"}, lambda log: [*log[:4], log[5], log[4]]),
        ({"content"}, lambda log: [*log[:5], replace(log[5], body=log[5].body.replace(b'"0"', b'"1"'))]),
        ({"content"}, lambda log: [*log[:5], with_header(log[5], "content-type", "text/plain")]),
        ({"stranger"}, lambda log: [*log[:5], with_header(log[5], "ce-operationid", "nobody")]),
        ({"chain"}, lambda log: [with_header(log[0], "ce-actor", "somebody"), *log[1:]]),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else "",
)
async def test_each_fault_of_a_log_is_named(codes: set[str], doctor: Callable[[Log], Log]) -> None:
    ledger, log = await honest()
    assert codes <= found(ledger, doctor(log))


async def test_what_was_refused_must_be_absent_and_for_a_reason() -> None:
    ledger, log = await honest()
    assert found(ledger, await late(log)) == {"refused"}
    newest = Tip(log[5].ref).after(log[5])
    ledger.enter("nobody in its way", [newest], lambda mark: named(mark, 1)).attempt.refused = True
    assert found(ledger, log) == {"baseless"}


async def test_an_append_acknowledged_at_two_places_is_named() -> None:
    ledger, log = await honest()
    ledger.attempts[SINGLE].acknowledge([moved(log[0], 9)])
    assert found(ledger, log) == {"position"}


async def test_what_was_never_learned_is_named() -> None:
    ledger, log = await honest()
    ledger.attempts[PAIR].told.clear()
    assert found(ledger, log) == {"unresolved"}


@pytest.mark.parametrize(
    ("codes", "doctor"),
    [
        (set(), lambda feed: feed),
        ({"feed-gap"}, lambda feed: [*feed[:2], *feed[3:]]),
        ({"feed-gap"}, lambda feed: feed[:-1]),
        ({"feed-repeat"}, lambda feed: [*feed[:3], feed[2], *feed[3:]]),
        ({"feed-order"}, lambda feed: [feed[1], feed[0], *feed[2:]]),
        ({"feed-content"}, lambda feed: [feed[0]._replace(sum="another"), *feed[1:]]),
        ({"feed-stranger"}, lambda feed: [*feed, feed[0]._replace(position=99)]),
    ],
)
async def test_each_fault_of_a_feed_is_named(
    codes: set[str], doctor: Callable[[Sequence[Entry]], Sequence[Entry]]
) -> None:
    _, log = await honest()
    entries = [entry(recorded) for recorded in log]
    assert {violation.code for violation in compare("any", doctor(entries), entries)} == codes
