"""What the past answers about lives that end and begin again, about times, and about ranges of the log."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic_core import from_json

from domain import node, project
from domain.contract import NodeInfo, Power
from domain.references import FinishDeletion
from domain.vm import DeleteVm
from eventstore.log.envelope import Ref
from projections import copies, database, operation_rows, transaction
from projections.books import MODELS, TABLES, judged
from projections.database import Pool, ReadModelsUnavailable
from projections.past import changes, queries
from projections.past.changes import Changed, Range, changed, samples
from projections.past.models import PAST, PAST_MODELS
from projections.projects import PROJECTS
from projections.shelf import NOW
from projections.vms import VMS
from runtime.local.servers import Postgres
from tests.conftest import fresh_database
from tests.projections.cloud import Cloud, cloud
from tests.projections.golden_rows import FixedSecrets
from tests.projections.test_past import park

DEFAULT, HOST = Ref("default", "project", "default"), Ref("system", "node", "host-1")
Made = tuple[Cloud, Pool]


async def applied(made: Cloud, *, hours: int = 0) -> int:
    """Apply the log to the present and the past; its end. `hours`: the clock of the last event was so far behind."""
    end = await made.store.last_position()
    for shelf in (NOW, PAST):
        async with await database.connect(made.dsn, "test", shelf.schema) as conn:
            if await copies.stored_versions(conn, shelf.schema) is None:
                await copies.make(conn, shelf.models, shelf.schema)
            after = await database.checkpoint(conn)
            batch = [each for each in await made.store.between(after, end) if each.position > after]
            if hours:
                last = batch[-1]
                time = (last.moment - timedelta(hours=hours)).isoformat()
                batch[-1] = replace(last, headers={**last.headers, "ce-time": time})
            await transaction.apply(
                conn, FixedSecrets(), after, [judged(each) for each in batch], shelf.models, park=park
            )
    return end


@pytest.fixture
async def made(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Made]:
    async with cloud(tmp_path, postgres) as one:
        await one.furnish()
        async with queries.pool(one.dsn, "test") as pool:
            yield one, pool


async def ids(pool: Pool, kind: str, at: int, **filters: str) -> list[str]:
    found = await queries.page(pool, TABLES[kind], filters, at, 0, 100, mine=None)
    return [each["id"] for each in found.items]


async def delete_project_with(made: Made, *vms: Ref) -> None:
    one, _ = made
    for ref in vms:
        await one.ask(ref, DeleteVm)
        await one.report(ref, Power.ABSENT)
    deletion = project.DeleteProject(**one.asked(project="default"))
    await one.do(DEFAULT, deletion)
    await one.do(DEFAULT, FinishDeletion(at=deletion.at, id="default"))


async def test_a_project_of_the_same_id_is_another_one(made: Made) -> None:
    one, pool = made
    first = await applied(one)
    await delete_project_with(made)
    deleted = await applied(one)
    await one.do(DEFAULT, project.CreateProject(**one.asked(project="default", name="Second")))
    again = await applied(one)
    assert [await ids(pool, "project", at) for at in (first, deleted, again)] == [["default"], [], ["default"]]
    names = []
    for at in (first, deleted, again):
        found = await queries.one(pool, PROJECTS, DEFAULT, at, mine=["default"])
        assert found is not None
        names.append((from_json(found.text)["name"], found.deleted))
    assert names == [("Default", False), ("Default", True), ("Second", False)]
    assert await queries.begun(pool, "default") == deleted
    assert await queries.begun(pool, "other") == 0


async def test_a_retired_node_that_comes_back_was_away_in_between(made: Made) -> None:
    one, pool = made
    first = await applied(one)
    await one.do(HOST, node.LoseNode(at=datetime.now(UTC), node="host-1", silent_seconds=60.0))
    await one.do(HOST, node.RetireNode(**one.asked(node="host-1")))
    retired = await applied(one)
    size = {"vcpus": 8, "memory_mib": 8192, "disk_gib": 100}
    info = NodeInfo(node="host-1", region="north", virt_type="test", seed_url="http://192.0.2.1/", version="1", **size)
    await one.do(HOST, node.RegisterNode(at=datetime.now(UTC), node="host-1", info=info, take_over=True))
    back = await applied(one)
    assert [await ids(pool, "node", at) for at in (first, retired, back)] == [["host-1"], [], ["host-1"]]
    assert await ids(pool, "node", first - 1) == []
    assert [await ids(pool, "node", at, region="north") for at in (first, retired, back)] == [[], [], ["host-1"]]


async def test_a_deleted_vm_is_in_no_list_from_then_on(made: Made) -> None:
    one, pool = made
    ref = await one.running(labels={"team": "a"})
    there = await applied(one)
    await one.ask(ref, DeleteVm)
    await one.report(ref, Power.ABSENT)
    gone = await applied(one)
    assert [await ids(pool, "vm", at, project="default", label="team=a") for at in (there, gone)] == [[ref.id], []]
    found = await queries.one(pool, VMS, ref, gone, mine=None)
    assert found is not None
    assert found.deleted
    for at in (there, gone):
        assert await queries.one(pool, VMS, ref, at, mine=["other"]) is None
        assert await queries.one(pool, VMS, ref, at, mine=["default"]) is not None
    assert await queries.one(pool, VMS, ref, 1, mine=None) is None


async def test_a_time_always_includes_its_own_event(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if clocks of handlers differ, and a later event says an earlier time."""
    one, pool = made
    end = await applied(one)
    times = {each.position: each.moment for each in await one.store.between(0, end)}
    for position, moment in times.items():
        assert await queries.position_of(pool, moment) >= position
    with monkeypatch.context() as patched:
        patched.setattr(queries, "CLOSE", 1)
        newest = max(times, key=lambda position: (times[position], position))
        assert times[await queries.position_of(pool, times[newest])] == times[newest], "the latest times count"
    await one.create()
    await applied(one, hours=1)
    assert await queries.position_of(pool, times[1] - timedelta(hours=2)) == 0
    early = await queries.position_of(pool, times[1] - timedelta(microseconds=1))
    assert early == end + 1, "the event of the slow clock was there, by its own time"


async def test_what_changed_in_a_range_is_listed_once(made: Made) -> None:
    one, pool = made
    first = await applied(one)
    ref = await one.running()
    last = await applied(one)
    (vm,) = await changed(pool, Range(first, last), 0, 10)
    assert (vm.ref, vm.position, vm.before) == (ref, first + 1, None)
    assert vm.after is not None
    assert from_json(vm.after.text)["phase"] == "running"
    whole = await changed(pool, Range(0, last), 0, 10)
    assert [each.ref for each in whole] == [DEFAULT, Ref("system", "image", "base"), HOST, ref]
    assert await paged(pool, Range(0, last), 1) == whole
    (again,) = await changed(pool, Range(first + 1, last), 0, 10)
    assert (again.ref, again.position) == (ref, first + 2)
    assert again.before is not None
    assert again.before.version == 1
    for more, refs in (
        ({"kind": "node"}, [HOST]),
        ({"id": ref.id}, [ref]),
        ({"project": "default"}, [DEFAULT, ref]),
        ({"mine": ["default"]}, [DEFAULT, ref]),
        ({"mine": []}, []),
    ):
        found = await changed(pool, replace(Range(0, last), **more), 0, 10)
        assert [each.ref for each in found] == refs, more
    assert await changed(pool, Range(last, last), 0, 10) == []


async def paged(pool: Pool, within: Range, limit: int) -> list[Changed]:
    """All pages of a range."""
    pages: list[Changed] = []
    while page := await changed(pool, within, pages[-1].position if pages else 0, limit):
        pages += page
    return pages


@pytest.mark.parametrize("scans", [(), (1,), (2, 3), (1, 1, 1)])
async def test_a_range_of_many_events_and_few_resources_is_listed_from_the_heads(
    made: Made, monkeypatch: pytest.MonkeyPatch, scans: tuple[int, ...]
) -> None:
    """Any number of events that is looked at before gives the same pages, in any range, to whom it belongs."""
    one, pool = made
    old = await one.running()
    other = await one.running()
    await delete_project_with(made, old, other)
    await one.do(DEFAULT, project.CreateProject(**one.asked(project="default", name="Second")))
    begun = await one.store.last_position()
    young = await one.running()
    last = await applied(one)
    ranges = [Range(start, end) for start in range(0, last, 4) for end in (start, start + 4, last)]
    more: list[dict[str, Any]] = [
        *({}, {"project": "default"}, {"kind": "vm"}, {"kind": "node"}, {"id": young.id}, {"id": "nothing"}),
        *({"mine": ["default"]}, {"mine": ["default"], "begins": {"default": begun}}, {"mine": []}),
        {"mine": ["default"], "begins": {"default": begun}, "kind": "project"},
    ]
    wanted = [replace(each, last=min(each.last, last), **some) for each in ranges for some in more]
    expected = [await changed(pool, each, 0, 100) for each in wanted]
    assert {len(each) for each in expected} >= {0, 1, 2, 3}
    hidden = replace(Range(0, last), mine=["default"], begins={"default": begun})
    assert [(each.ref, each.position) for each in await changed(pool, hidden, 0, 100)] == [
        (DEFAULT, begun),
        (young, begun + 1),
    ]
    counted = [await samples(pool, found, within) for found, within in zip(expected, wanted, strict=True)]
    log = [(each.position, each.ref) for each in await one.store.between(0, last)]
    monkeypatch.setattr(changes, "SCANS", scans)
    for within, found, sample in zip(wanted, expected, counted, strict=True):
        for limit in (1, 2, 100):
            assert await paged(pool, within, limit) == found, (within, limit)
        for each in found:
            events = [at for at, ref in log if ref == each.ref and each.position <= at <= within.last]
            assert [recorded.position for recorded in sample[each.ref].events] == events
            assert sample[each.ref].more == 0


async def test_the_events_between_the_first_and_the_last_are_counted(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, pool = made
    ref = await one.running()
    end = await applied(one)
    of_vm = [each.position for each in await one.store.between(0, end) if each.ref == ref]
    monkeypatch.setattr(changes, "FIRST", 1)
    monkeypatch.setattr(changes, "LAST", 1)
    for first in (0, *of_vm[:-1]):
        for last in of_vm:
            within = Range(first, last, id=ref.id)
            found = await changed(pool, within, 0, 10)
            inside = [position for position in of_vm if first < position <= last]
            for of in (within, replace(within, mine=["default"], begins={"other": end})):
                (sample,) = (await samples(pool, found, of)).values() if inside else (None,)
                if sample is not None:
                    assert [each.position for each in sample.events] == sorted({inside[0], inside[-1]})
                    assert sample.more == max(0, len(inside) - 2)


async def test_operations_are_listed_as_they_were(made: Made) -> None:
    one, pool = made
    ref = await one.create()
    accepted = await applied(one)
    await one.place(ref)
    await one.report(ref, Power.ON, 1)
    ended = await applied(one)

    async def listed(at: int, **filters: str) -> list[str]:
        views, _, position = await queries.operations(pool, {"vm": ref.id, **filters}, at, None, 10, mine=["default"])
        assert position == at
        return [each["status"] for each in views]

    assert [await listed(at) for at in (accepted - 1, accepted, ended)] == [[], ["accepted"], ["succeeded"]]
    assert await listed(accepted, status="accepted") == ["accepted"]
    assert await listed(ended, status="accepted") == []
    views, following, _ = await queries.operations(pool, {}, ended, None, 1, mine=None)
    assert views[0]["resource"] == ref.id
    more, _, _ = await queries.operations(pool, {}, ended, following, 10, mine=None)
    assert [each["resource"] for each in more] == ["base", "default"]


async def test_an_event_of_another_aggregate_is_no_step_even_if_it_comes_first(made: Made) -> None:
    """Its own aggregate decides, also for an event that was stored before the operation began."""
    one, pool = made
    id_ = str(uuid4())
    await one.do(HOST, node.LoseNode(at=datetime.now(UTC), node="host-1", silent_seconds=60.0), operation=id_)
    before = await applied(one)
    ref = await one.create(operation=id_)
    end = await applied(one)
    found = await queries.operation(pool, id_, end, mine=None)
    assert found is not None
    assert found == (await operation_rows.get(pool, id_, mine=None))[0]
    assert [step["position"] for step in found["events"]] == [end]
    assert found["resource"] == ref.id
    assert await queries.operation(pool, id_, before, mine=None) is None


async def test_without_a_past_reads_say_so(postgres: Postgres) -> None:
    """An older platform has only the present."""
    dsn = await fresh_database(postgres)
    async with await database.connect(dsn, "test") as conn:
        await copies.make(conn, MODELS, NOW.schema)
    async with queries.pool(dsn, "test") as pool:
        for asking in (
            queries.position_of(pool, datetime.now(UTC)),
            queries.one(pool, VMS, Ref("p", "vm", "x"), 0, mine=None),
            queries.page(pool, VMS, {}, 0, 0, 1, mine=None),
            queries.operation(pool, "x", 0, mine=None),
            queries.operations(pool, {}, 0, None, 1, mine=None),
            queries.begun(pool, "p"),
        ):
            with pytest.raises(ReadModelsUnavailable):
                await asking
    assert PAST_MODELS
