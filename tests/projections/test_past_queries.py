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
from projections.past import queries
from projections.past.models import PAST, PAST_MODELS
from projections.past.queries import Changed
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


async def delete_project(made: Cloud) -> None:
    deletion = project.DeleteProject(**made.asked(project="default"))
    await made.do(DEFAULT, deletion)
    await made.do(DEFAULT, FinishDeletion(at=deletion.at, id="default"))


async def test_a_project_of_the_same_id_is_another_one(made: Made) -> None:
    one, pool = made
    first = await applied(one)
    await delete_project(one)
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
    asked: dict[str, Any] = {"project": None, "kind": None, "id_": None, "mine": None}
    (vm,) = await queries.changed(pool, first, last, 0, 10, **asked)
    assert (vm.ref, vm.position, vm.before) == (ref, first + 1, None)
    assert vm.after is not None
    assert from_json(vm.after.text)["phase"] == "running"
    whole = await queries.changed(pool, 0, last, 0, 10, **asked)
    assert [each.ref for each in whole] == [DEFAULT, Ref("system", "image", "base"), HOST, ref]
    pages: list[Changed] = []
    while page := await queries.changed(pool, 0, last, pages[-1].position if pages else 0, 1, **asked):
        pages += page
    assert pages == whole
    (again,) = await queries.changed(pool, first + 1, last, 0, 10, **asked)
    assert (again.ref, again.position) == (ref, first + 2)
    assert again.before is not None
    assert again.before.version == 1
    for more, refs in (
        ({"kind": "node"}, [HOST]),
        ({"id_": ref.id}, [ref]),
        ({"project": "default"}, [DEFAULT, ref]),
        ({"mine": ["default"]}, [DEFAULT, ref]),
        ({"mine": []}, []),
    ):
        found = await queries.changed(pool, 0, last, 0, 10, **{**asked, **more})
        assert [each.ref for each in found] == refs, more
    assert await queries.changed(pool, last, last, 0, 10, **asked) == []


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
