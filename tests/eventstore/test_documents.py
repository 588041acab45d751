"""Documents: the newest of each subject, and none that overwrites what its writer has not seen."""

from pathlib import Path

import pytest
from nats.aio.client import Client

from eventstore.documents import Document, Documents
from eventstore.log.store import Conflict, Unavailable
from runtime import subjects
from runtime.bus.streams import ensure_all
from runtime.local.servers import start_nats
from tests.eventstore.log import AT, connection, some_id


@pytest.fixture
def documents(nc: Client) -> Documents:
    return Documents(nc, subjects.WANTED)


async def test_a_document_is_made_replaced_and_dropped(documents: Documents) -> None:
    subject = subjects.wanted(node := some_id(), "vm", some_id())
    first = await documents.put(subject, b"one", last=0)
    second = await documents.put(subject, b"two", last=first)
    assert second > first
    assert await documents.all(subjects.wanted_of(node)) == [Document(subject, second, b"two", AT)]
    await documents.drop(subject)
    await documents.drop(subject)
    assert await documents.all(subjects.wanted_of(node)) == []
    assert await documents.put(subject, b"three", last=0) > second


async def test_what_was_replaced_meanwhile_is_not_overwritten(documents: Documents) -> None:
    subject = subjects.wanted(node := some_id(), "vm", some_id())
    first = await documents.put(subject, b"one", last=0)
    second = await documents.put(subject, b"two", last=first)
    for stale in (0, first, second + 1):
        with pytest.raises(Conflict) as raised:
            await documents.put(subject, b"three", last=stale)
        assert raised.value.subject == subject
    assert [d.body for d in await documents.all(subjects.wanted_of(node))] == [b"two"]
    await documents.drop(subject)
    with pytest.raises(Conflict):
        await documents.put(subject, b"three", last=second)


async def test_all_are_found_however_many(documents: Documents) -> None:
    node = some_id()
    kept = {subjects.wanted(node, "vm", f"vm-{n}"): str(n).encode() for n in range(600)}
    for subject, body in kept.items():
        await documents.put(subject, body, last=0)
    await documents.put(subjects.wanted(some_id(), "vm", "vm-0"), b"of another node", last=0)
    found = await documents.all(subjects.wanted_of(node))
    assert {d.subject: d.body for d in found} == kept
    assert len(found) == 600
    assert len(await documents.all(subjects.wanted_of())) > 600


async def test_a_bus_that_is_away_is_unavailable(tmp_path: Path) -> None:
    server = await start_nats(tmp_path)
    async with connection(server.url) as nc:
        await ensure_all(nc.jetstream(), 1)
        documents = Documents(nc, subjects.WANTED, timeout=0.3)
        subject = subjects.wanted("n1", "vm", "v1")
        position = await documents.put(subject, b"one", last=0)
        await server.kill()
        for attempt in (documents.put(subject, b"two", last=position), documents.drop("x"), documents.all(subject)):
            with pytest.raises(Unavailable):
                await attempt


async def test_a_stream_that_is_not_there_is_unavailable(nc: Client) -> None:
    missing = Documents(nc, "NO_SUCH_STREAM", timeout=0.5)
    for attempt in (missing.put("no.such.subject", b"", last=0), missing.drop("x"), missing.all("x")):
        with pytest.raises(Unavailable):
            await attempt
