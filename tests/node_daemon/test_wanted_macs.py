"""Wanted documents are for one node: what handlers did not write for it at this subject changes nothing there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from domain.contract import Desired, Wanted
from node_daemon.membership.node_key import node_key
from node_daemon.reconcile.wanted import WantedDocuments
from runtime import subjects
from runtime.bus.streams import ensure_all
from runtime.local.servers import start_nats
from runtime.node_keys import MAC, WANTED, NodeKeys, derived, give, node_keys, tag, valid
from runtime.settings import NodeSettings, SimulationSettings
from runtime.tasks.patience import CannotRun
from tests.node_daemon.documents import NODE, new_vm, wanted
from tests.waiting import eventually

KEYS = NodeKeys(b"r" * 32)
OTHER = "n2"


@asynccontextmanager
async def followed(path: Path) -> AsyncIterator[tuple[Client, WantedDocuments]]:
    server = await start_nats(path)
    try:
        nc = await nats.connect(server.url)
        await ensure_all(nc.jetstream(), 1)
        documents = WantedDocuments(nc, NODE, lambda _: None, derived(KEYS.root, NODE))
        task = asyncio.create_task(documents.follow())
        try:
            yield nc, documents
        finally:
            task.cancel()
            await nc.close()
    finally:
        await server.stop()


async def publish(nc: Client, want: Wanted, *, mac: str | None = "", vm: str | None = None) -> None:
    """Publish a document, with its true MAC unless another is given, at its own subject or at that of another VM."""
    subject, body = subjects.wanted(NODE, "vm", vm or want.vm), want.model_dump_json().encode()
    given = KEYS.mac(NODE, WANTED, subject, body) if mac == "" else mac
    await nc.jetstream().publish(subject, body, headers={MAC: given} if given is not None else None)


async def test_only_documents_of_handlers_for_this_node_count(tmp_path: Path) -> None:
    async with followed(tmp_path) as (nc, documents):
        vm, other = new_vm(), new_vm()
        true = wanted(vm, epoch=2, generation=5)
        await publish(nc, true)
        await eventually(lambda: documents.get(vm), "the true document")
        evil = wanted(vm, epoch=2, generation=9, desired=Desired.ABSENT)
        subject, body = subjects.wanted(NODE, "vm", vm), evil.model_dump_json().encode()
        forged = [
            None,
            "0" * 32,
            "\xe9",
            KEYS.mac(OTHER, WANTED, subject, body),
            KEYS.mac(NODE, "report", subject, body),
            KEYS.mac(NODE, WANTED, subjects.wanted(NODE, "vm", other), body),
            KEYS.mac(NODE, WANTED, subject, true.model_dump_json().encode()),
        ]
        for mac in forged:
            position = documents.position
            await publish(nc, evil, mac=mac)
            await eventually(lambda p=position: documents.position > p, "read")  # type: ignore[misc]
            assert documents.malformed == {subject: documents.position}
            assert (known := documents.get(vm)) is not None
            assert known.generation == 5
        await publish(nc, true, vm=other)
        await eventually(lambda: len(documents.malformed) == 2, "a document of another VM at this subject")
        assert documents.get(other) is None
        await publish(nc, wanted(vm, epoch=2, generation=6))
        await eventually(lambda: len(documents.malformed) == 1, "a true one replaces what was forged")


async def test_an_earlier_document_or_tombstone_changes_nothing(tmp_path: Path) -> None:
    async with followed(tmp_path) as (nc, documents):
        vm = new_vm()
        await publish(nc, wanted(vm, epoch=3, generation=7))
        await eventually(lambda: documents.get(vm), "the true document")
        for epoch, generation in ((1, 1), (2, 9), (3, 6)):
            position = documents.position
            await publish(nc, wanted(vm, epoch=epoch, generation=generation, desired=Desired.ABSENT))
            await eventually(lambda p=position: documents.position > p, "read")  # type: ignore[misc]
            assert documents.malformed
            assert (known := documents.get(vm)) is not None
            assert (known.desired, known.generation) == (Desired.ON, 7)


async def test_a_report_that_is_delivered_as_a_document_of_another_node_is_ignored(tmp_path: Path) -> None:
    async with followed(tmp_path) as (nc, documents):
        vm, js = new_vm(), nc.jetstream()
        subject, body = subjects.wanted(NODE, "vm", vm), wanted(vm).model_dump_json().encode()
        mac = tag(derived(KEYS.root, OTHER), WANTED, subject, body)
        report = subjects.report(OTHER, "vm", vm)
        await js.publish(report, body, headers={MAC: mac})
        stored = (await js.stream_info(subjects.WANTED)).state.messages
        await nc.publish(f"$JS.API.DIRECT.GET.{subjects.REPORTS}.{report}", b"", reply=subject)

        async def delivered() -> bool:
            return (await js.stream_info(subjects.WANTED)).state.messages > stored

        await eventually(delivered, "without accounts the server stores it as a document")
        await eventually(lambda: subject in documents.malformed, "counted")
        assert documents.get(vm) is None


def test_the_files(tmp_path: Path) -> None:
    keys = node_keys(tmp_path / "node.keys")
    assert node_keys(tmp_path / "node.keys") == keys
    assert (tmp_path / "node.keys").stat().st_mode & 0o777 == 0o600
    settings = NodeSettings(home=tmp_path, node=NODE)
    assert node_key(settings) is None
    give(keys, NODE, settings.node_key_path)
    assert settings.node_key_path.stat().st_mode & 0o777 == 0o600
    key = node_key(settings)
    assert key == derived(keys.root, NODE) != derived(keys.root, OTHER)
    assert valid(key, WANTED, "s", b"b", keys.mac(NODE, WANTED, "s", b"b"))
    simulated = SimulationSettings(home=tmp_path, node=OTHER)
    assert node_key(simulated) == keys.of(OTHER)
    settings.node_key_path.write_text("damaged")
    with pytest.raises(CannotRun, match="damaged"):
        node_key(settings)
    with pytest.raises(CannotRun, match="with the key of this node"):
        node_key(NodeSettings(home=tmp_path, node=NODE, node_key_file=tmp_path / "none"))
