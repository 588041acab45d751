"""Documents: the newest of each subject, and none that overwrites what its writer has not seen."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.client import Client

from eventstore.documents import Document, Documents
from eventstore.log.store import Conflict, Unavailable
from runtime import subjects
from runtime.bus.streams import adapt, ensure_all, platform_streams
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


async def batched(nc: Client, subjects_: Iterable[str]) -> int:
    """How many of these documents were stored in a batch: the server keeps its mark."""
    raw = [await nc.jetstream().get_last_msg(subjects.WANTED, subject) for subject in subjects_]
    return sum("Nats-Batch-Id" in (message.headers or {}) for message in raw)


async def test_documents_at_the_same_time_are_stored_in_groups_each_with_its_own_outcome(
    documents: Documents, nc: Client
) -> None:
    each = [subjects.wanted("n1", "vm", some_id()) for _ in range(100)]
    first = await asyncio.gather(*(documents.put(subject, b"one", last=0) for subject in each))
    assert len(set(first)) == len(each) and await batched(nc, each) > 50
    stale = set(each[::7])
    lasts = [0 if subject in stale else position for subject, position in zip(each, first, strict=True)]
    second = await asyncio.gather(
        *(documents.put(subject, b"two", last=last) for subject, last in zip(each, lasts, strict=True)),
        return_exceptions=True,
    )
    assert {subject for subject, found in zip(each, second, strict=True) if isinstance(found, Conflict)} == stale
    kept = {found.subject: found for found in await documents.all(subjects.wanted_of("n1"))}
    for subject, position in zip(each, second, strict=True):
        assert kept[subject].body == (b"one" if subject in stale else b"two")
        assert subject in stale or kept[subject].position == position


async def test_a_stream_of_an_earlier_version_gets_single_documents_until_it_is_updated(tmp_path: Path) -> None:
    server = await start_nats(tmp_path)
    try:
        async with connection(server.url) as nc:
            await ensure_all(nc.jetstream(), 1)
            await nc.jetstream().delete_stream(subjects.WANTED)
            config = next(each for each in platform_streams(1) if each.name == subjects.WANTED)
            await nc.jetstream().add_stream(replace(config, allow_atomic=False))
            documents = Documents(nc, subjects.WANTED)
            each = [subjects.wanted("n1", "vm", some_id()) for _ in range(40)]
            lasts = await asyncio.gather(*(documents.put(subject, b"one", last=0) for subject in each))
            assert len(set(lasts)) == 40 and await batched(nc, each) == 0
            await adapt(nc.jetstream())
            again = Documents(nc, subjects.WANTED)
            await asyncio.gather(
                *(again.put(subject, b"two", last=last) for subject, last in zip(each, lasts, strict=True))
            )
            assert await batched(nc, each) > 20
    finally:
        await server.stop()


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
