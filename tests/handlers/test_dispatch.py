"""What stands in the stream of wanted documents is what the log says, whatever the server brings back."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from domain.contract import Desired, Power, Wanted
from eventstore.documents import Documents
from eventstore.vault.vault import Vault
from handlers.managers import dispatch
from handlers.managers.dispatch import Dispatcher
from handlers.world.world import World
from runtime import subjects
from runtime.bus.streams import ensure_all
from runtime.local.servers import start_nats
from runtime.node_keys import WANTED as LABEL, node_keys
from tests.eventstore.log import connection
from tests.handlers.platform import WriteSide, write_side
from tests.waiting import eventually


@pytest.fixture
async def side(servers_home: Path) -> AsyncIterator[WriteSide]:
    home = servers_home / f"dispatch-{uuid.uuid4().hex[:8]}"
    home.mkdir()
    async with write_side(home, NEBULA_NODE_TIMEOUT="60") as made:
        await made.start()
        yield made


async def deleted(side: WriteSide) -> tuple[str, Wanted, Wanted]:
    """A VM that ran and is gone; the document that wanted it to run, and its tombstone."""
    await side.cloud()
    await side.node("n1")
    await side.heartbeat("n1")
    vm = await side.create()
    on = await eventually(lambda: side.wanted(vm), "wanted document")
    await side.report(on, Power.ON, boots=1)
    await eventually(lambda: side.has("default", "vm", vm, "VmStarted"), "it runs")
    await side.ok("default", "vm", "delete", {"vm": vm})

    async def absent() -> Wanted | None:
        found = await side.wanted(vm)
        return found if found is not None and found.desired is Desired.ABSENT else None

    grave = await eventually(absent, "tombstone")
    await side.report(grave, Power.ABSENT)
    await eventually(lambda: side.has("default", "vm", vm, "VmDeleted"), "it is gone")
    return vm, on, grave


@asynccontextmanager
async def dispatching(side: WriteSide) -> AsyncIterator[Documents]:
    """A dispatcher in this process, on the world as the log tells it; the handlers' own is stopped."""
    await side.stop_all()
    world, documents = World(), Documents(side.nc, subjects.WANTED)
    for recorded in await side.store.read(0):
        world.apply(recorded)
    vault = Vault.of(side.nc, side.home / "master.key")
    task = asyncio.create_task(Dispatcher(documents, vault, world).driver().run())
    yield documents
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_the_tombstone_of_what_is_gone_stays(side: WriteSide) -> None:
    vm, _, grave = await deleted(side)
    async with dispatching(side):
        await asyncio.sleep(0.5)
        assert await side.wanted(vm) == grave


async def test_an_old_tombstone_is_dropped(side: WriteSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "TOMBSTONE_AGE", timedelta(0))
    vm, _, _ = await deleted(side)

    async def dropped() -> bool:
        return await side.wanted(vm) is None

    async with dispatching(side):
        await eventually(dropped, "the tombstone is dropped")


async def test_what_comes_back_is_buried_again(side: WriteSide) -> None:
    """As when the server is killed: the connection is another one, and an old document stands there."""
    vm, on, _ = await deleted(side)
    async with dispatching(side) as documents:
        subject = subjects.wanted("n1", "vm", vm)
        await asyncio.sleep(0.2)
        [there] = await documents.all(subject)
        await documents.put(subject, on.model_dump_json().encode(), last=there.position)
        await side.nats.stop()
        side.nats = await start_nats(side.home, port=side.nats.port)

        async def buried() -> bool:
            with contextlib.suppress(Exception):
                found = await side.wanted(vm)
                return found is not None and found.desired is Desired.ABSENT
            return False

        await eventually(buried, "it is buried")
        found = await side.wanted(vm)
        assert found is not None
        assert (found.generation, found.image, found.seed_url) == (on.generation + 1, None, "")


async def test_a_killed_server_keeps_the_newest_document(tmp_path: Path) -> None:
    """What dispatch relies on: overwriting is as durable as any publish. (Dropping is not.)"""
    server = await start_nats(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        nc = await stack.enter_async_context(connection(server.url))
        await ensure_all(nc.jetstream(), 1)
        documents = Documents(nc, subjects.WANTED)
        for round_ in range(10):
            expected = {}
            for number in range(20):
                subject = subjects.wanted("n", "vm", f"vm-{round_}-{number}")
                first = await documents.put(subject, b"on", last=0)
                await documents.put(subject, b"absent", last=first)
                expected[subject] = b"absent"
            await server.kill()
            server = await start_nats(tmp_path, port=server.port)
            there = {document.subject: document.body for document in await documents.all(subjects.wanted_of())}
            assert expected.items() <= there.items()
            assert set(there.values()) == {b"absent"}
    await server.stop()


async def test_what_handlers_did_not_sign_is_written_again(side: WriteSide) -> None:
    """Documents of an earlier version have no MAC, and tombstones neither; a forged one has a wrong MAC."""
    gone, _, grave = await deleted(side)
    kept = await side.create()
    on = await eventually(lambda: side.wanted(kept), "wanted document")
    keys = node_keys(side.home / "node.keys")
    documents = Documents(side.nc, subjects.WANTED)

    async def signed(vm: str, desired: Desired) -> bool:
        found = await documents.all(subjects.wanted("n1", "vm", vm))
        return any(
            keys.valid("n1", LABEL, each.subject, each.body, each.mac)
            and Wanted.model_validate_json(each.body).desired is desired
            for each in found
        )

    for vm, document, mac in ((kept, on, None), (kept, on, "0" * 32), (gone, grave, None)):
        desired = document.desired
        await eventually(lambda v=vm, d=desired: signed(v, d), "signed")  # type: ignore[misc]
        await side.nc.jetstream().publish(
            subjects.wanted("n1", "vm", vm),
            document.model_dump_json().encode(),
            headers={"Nebula-Mac": mac} if mac is not None else None,
        )
        await eventually(lambda v=vm, d=desired: signed(v, d), "signed again")  # type: ignore[misc]
