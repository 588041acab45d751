"""The wanted documents of a node, read from their stream: which one counts."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from domain.contract import Desired
from node_daemon.reconcile.wanted import WantedDocuments
from runtime import subjects
from runtime.bus import ordered
from runtime.bus.streams import ensure_all
from runtime.local.servers import start_nats
from tests.eventstore.log import connection
from tests.node_daemon.documents import NODE, new_vm, wanted
from tests.waiting import eventually


async def test_in_a_stream_that_was_made_anew_an_older_document_means_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "HEARTBEAT", 0.3)  # the server does not say that a stream was deleted
    server = await start_nats(tmp_path)
    try:
        async with connection(server.url) as nc:
            js, vm, other = nc.jetstream(), new_vm(), new_vm()
            await ensure_all(js, 1)
            documents = WantedDocuments(nc, NODE, lambda _: None)
            following = asyncio.create_task(documents.follow())

            async def publish(id_: str, **changes: Any) -> None:
                body = wanted(id_, **changes).model_dump_json().replace("{", '{"place":[9,9],', 1)
                await js.publish(subjects.wanted(NODE, "vm", id_), body.encode())

            def stands(id_: str, generation: int) -> bool:
                return (known := documents.get(id_)) is not None and known.generation == generation

            for generation in (9 * 10**18, 5):
                await publish(vm, generation=generation)
                await eventually(lambda g=generation: stands(vm, g), "the newest counts")  # type: ignore[misc]
            before = documents.get(vm)
            assert before is not None
            assert before.place.position == 2, "said by the server, not by the document"

            await js.delete_stream(subjects.WANTED)
            await ensure_all(js, 1)
            await publish(vm, generation=4, desired=Desired.ABSENT)
            await publish(other)
            await eventually(lambda: stands(other, 1), "the other stream is read")
            assert documents.get(vm) == before
            await publish(vm, generation=6)
            await eventually(lambda: stands(vm, 6), "a newer one counts")
            await publish(vm, generation=5)
            await eventually(lambda: stands(vm, 5), "and from then on the newest of this stream")
            following.cancel()
    finally:
        await server.stop()
