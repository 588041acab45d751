"""A log that holds what is no event, and events that nothing can be made of: as replayed, and rebuilt, all the same."""

import random
import string
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain import node, operation as operations, tag, vm
from domain.base import Event
from domain.contract import NodeInfo, Power
from eventstore.log.envelope import Context, Ref
from eventstore.log.judge import Tip
from eventstore.log.store import Change, Loaded
from eventstore.parking.parking import Parking
from eventstore.vault.keystore import KeyStore
from projections import aggregates, books, database, events, rebuild, seeds
from projections.aggregates import Found
from projections.vms import VMS
from runtime import subjects
from runtime.bus.quick_client import QuickClient
from runtime.local.servers import Postgres
from tests.integrity.malformed import lay, strays
from tests.projections.cloud import Cloud, now, projected

Made = tuple[Cloud, database.Pool]

#: No index of Postgres takes in so much; no compression makes it less.
LONG = "".join(random.Random(8).choices(string.ascii_letters + string.digits, k=9000))


@pytest.fixture(scope="module")
async def made(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[Made]:
    async with projected(tmp_path_factory.mktemp("malformed"), postgres) as both:
        yield both


@pytest.fixture
async def fresh(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Made]:
    """For a test after which nothing is as replayed any more."""
    async with projected(tmp_path, postgres) as both:
        yield both


def asked(operation: str = "") -> dict[str, Any]:
    """What every event says that a command on a VM has led to."""
    return {"operation": operation or str(uuid.uuid4()), "fingerprint": "f", "deadline": now()}


async def as_replayed(cloud: Cloud) -> None:
    """Nothing differs from a replay, neither in the live read models nor in ones that are made anew."""
    await cloud.caught_up()
    assert (await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault)).tables == ()
    await rebuild.rebuild(cloud.nc, cloud.dsn, cloud.vault)
    assert (await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault)).tables == ()
    await cloud.running()  # the runner goes on with the new ones
    await cloud.caught_up()


async def tip(cloud: Cloud, ref: Ref) -> Tip:
    """The end of a history."""
    loaded: Loaded[None] = await cloud.store.load(ref, lambda state, event: None)
    return loaded.tip


async def add(cloud: Cloud, ref: Ref, *added: Event, **context: Any) -> None:
    """Append events as they are, whatever the rules say."""
    await cloud.store.append([Change(await tip(cloud, ref), list(added))], Context(**{"actor": "tester", **context}))


async def row(made: Made, ref: Ref) -> Found[vm.Vm]:
    cloud, pool = made
    await cloud.caught_up()
    found, _ = await aggregates.get(pool, VMS, ref, mine=None)
    assert found is not None
    return found


async def test_messages_that_are_no_events_make_no_difference(made: Made) -> None:
    cloud, pool = made
    living = await cloud.running()
    coming = Ref("system", "tag", "coming")
    named = tag.TagCreated(at=now(), operation=str(uuid.uuid4()), fingerprint="f", tag=coming.id, name="Coming")
    stop = vm.VmStopRequested(at=now(), force_after=now(), **asked())
    nc = QuickClient()
    await nc.connect(cloud.nats.url)
    laid = []
    for ref, event in ((living, stop), (coming, named)):
        for stray in strays(ref, await tip(cloud, ref), event).values():
            laid.append(await lay(nc, ref.subject.encode(), stray))
    for subject in (b"nebula.events.\xff.vm.x", b"nebula.events.a.b.c", b"nebula.events.a.vm.$"):
        laid.append(await lay(nc, subject, next(iter(strays(coming, Tip(coming), named).values()))))
    await nc.close()
    await add(cloud, coming, named)
    await cloud.ask(living, vm.StopVm)
    assert (await row(made, living)).version == 4
    await as_replayed(cloud)
    for position in laid:
        assert (await Parking(cloud.nc).get("log", str(position))).open
    found, _, _ = await events.page(pool, {}, laid[0] - 1, 500, mine=None)
    assert {each.position for each in found} >= set(laid)


async def test_a_key_that_cannot_be_opened_costs_its_guest_only(made: Made) -> None:
    cloud, pool = made
    ref, other = await cloud.create(), await cloud.create()
    await cloud.nc.jetstream().publish(subjects.vault_key(ref.id), b"hi")
    for each in (ref, other):
        await cloud.place(each)
        await cloud.report(each, Power.ON, 1)
        assert (await row(made, each)).state.phase == "running"
    await as_replayed(cloud)
    assert await seeds.find(pool, await cloud.vault.seed_secret(other.id, 1)) is not None
    await KeyStore(cloud.nc).erase(ref.id)


@pytest.mark.parametrize("then", [False, True], ids=["alone", "mended in the same batch"])
async def test_a_text_beyond_all_bounds_makes_no_difference(made: Made, then: bool) -> None:
    """Whether an event comes alone or in a batch with the one that mends it must not matter."""
    cloud, _ = made
    ref = await cloud.running()
    await add(cloud, ref, vm.VmChanged(at=now(), name=LONG, labels={LONG: LONG}, tags=(LONG,), **asked()))
    await cloud.caught_up()
    if then:
        await add(cloud, ref, vm.VmChanged(at=now(), name="short", labels={}, tags=(), **asked()))
    after = await row(made, ref)
    assert after.state.name == ("short" if then else LONG)
    await as_replayed(cloud)
    assert (await row(made, ref)) == after


async def test_names_beyond_all_bounds_make_no_difference(made: Made) -> None:
    """Each text that an index is made of, in the events of each kind."""
    cloud, _ = made
    spec = vm.Spec(vcpus=1, memory_mib=512, disk_gib=4)
    ref = Ref("default", "vm", str(uuid.uuid4()))
    made_ = vm.VmRequested(at=now(), vm=ref.id, project="default", name=LONG, image=LONG, spec=spec, **asked(LONG))
    placed = vm.VmScheduled(at=now(), node=LONG, epoch=1, deadline=now(), considered=())
    await add(cloud, ref, made_, placed, actor=LONG, operation=LONG, request=LONG)
    info = NodeInfo(
        node="host-2",
        region="r",
        vcpus=1,
        memory_mib=1,
        disk_gib=1,
        virt_type="test",
        seed_url="http://x/",
        version="1",
    )
    registered = node.NodeRegistered.model_validate({"at": now(), "info": {**info.model_dump(), "region": LONG}})
    await add(cloud, Ref("system", "node", "host-2"), registered)
    other = Ref("system", "tag", f"t-{ref.id}")
    await add(
        cloud, other, tag.TagCreated(at=now(), tag=other.id, name=LONG, operation=LONG, fingerprint="f"), operation=LONG
    )
    assert (await row(made, ref)).state.node == LONG
    await as_replayed(cloud)


async def test_events_that_the_rules_cannot_apply_make_no_difference(made: Made) -> None:
    cloud, _ = made
    nowhere = Ref("default", "vm", str(uuid.uuid4()))
    await add(cloud, nowhere, vm.VmScheduled(at=now(), node="n", epoch=1, deadline=now(), considered=()))
    ref = await cloud.running()
    twice = vm.VmRequested(
        at=now(),
        vm=ref.id,
        project="default",
        name="again",
        image="base",
        spec=vm.Spec(vcpus=1, memory_mib=512, disk_gib=4),
        **asked(),
    )
    await add(cloud, ref, twice)
    await add(cloud, ref, vm.VmStopRequested(at=now(), force_after=now(), **asked()))
    await add(cloud, nowhere, twice.model_copy(update={"vm": nowhere.id}))
    await cloud.caught_up()
    await as_replayed(cloud)


@pytest.mark.parametrize("place", ["evolve", "seed", "operation"])
async def test_rules_that_raise_make_no_difference(fresh: Made, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the rules about one event costs that event, and the same in every reader."""
    cloud, _ = fresh
    where, name = {
        "evolve": (VMS.of, "evolve"),
        "seed": (seeds, "evolve"),
        "operation": (operations, "evolve"),
    }[place]
    whole: Any = getattr(where, name)

    def raising(*arguments: Any) -> Any:
        if any(isinstance(each, vm.VmStopRequested) for each in arguments):
            raise KeyError("stop")
        return whole(*arguments)

    if where is VMS.of:
        monkeypatch.setitem(books.TABLES, "vm", replace(VMS, of=replace(VMS.of, evolve=raising)))
    else:
        monkeypatch.setattr(where, name, raising)
    ref = await cloud.running()
    await cloud.ask(ref, vm.StopVm)
    await cloud.ask(ref, vm.DeleteVm)
    await cloud.report(ref, Power.ABSENT)
    position = (await cloud.store.history(ref))[-3].position
    assert (await row(fresh, ref)).version == 6
    assert (await row(fresh, ref)).deleted
    await as_replayed(cloud)
    assert str(position) == (await Parking(cloud.nc).get("log", str(position))).key
