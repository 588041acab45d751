"""The streams keep their promises, or we do not start."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import StorageType
from nats.js.errors import APIError

from runtime import subjects
from runtime.bus.streams import MOST_CONSUMERS, WeakStream, adapt, ensure, ensure_all, events_stream, platform_streams
from runtime.local.servers import start_nats
from tests.eventstore.log import connection, folder_to_keep


@pytest.fixture(scope="module")
async def empty(servers_home: Path) -> AsyncIterator[Client]:
    """A server of our own, without streams."""
    folder_to_keep(servers_home / "streams")
    server = await start_nats(servers_home / "streams")
    async with connection(server.url) as nc:
        yield nc
    await server.stop()


@pytest.fixture
async def bare(empty: Client) -> AsyncIterator[Client]:
    yield empty
    for stream in await empty.jetstream().streams_info():
        assert stream.config.name is not None
        await empty.jetstream().delete_stream(stream.config.name)


async def test_what_is_missing_is_made_and_what_is_there_is_kept(bare: Client) -> None:
    js = bare.jetstream()
    await ensure_all(js, 1)
    await js.publish(subjects.wanted("n1", "vm", "v1"), b"kept")
    await ensure_all(js, 1)
    names = {stream.config.name for stream in await js.streams_info()}
    assert names == {config.name for config in platform_streams(1)}
    assert (await js.get_last_msg(subjects.WANTED, subjects.wanted("n1", "vm", "v1"))).data == b"kept"


async def test_subjects_of_a_derived_stream_are_updated_and_those_of_the_log_are_not(bare: Client) -> None:
    js = bare.jetstream()
    wanted = next(config for config in platform_streams(1) if config.name == subjects.PARKED)
    await js.add_stream(replace(wanted, subjects=["nebula.parked.before.*"]))
    await js.publish("nebula.parked.before.x", b"kept")
    await ensure(js, replace(wanted))
    info = await js.stream_info(subjects.PARKED)
    assert info.config.subjects == wanted.subjects and info.state.messages == 1


@pytest.mark.parametrize("found", [-1, 10])
@pytest.mark.parametrize("by", ["handlers", "authority"])
async def test_there_may_be_a_consumer_for_each_of_many_nodes(bare: Client, by: str, found: int) -> None:
    """Also in a stream of an earlier version. By default the server allows 1,000."""
    js = bare.jetstream()
    wanted = next(config for config in platform_streams(1) if config.name == subjects.WANTED)
    await js.add_stream(replace(wanted, max_consumers=found))
    await (ensure(js, replace(wanted)) if by == "handlers" else adapt(js))
    assert (await js.stream_info(subjects.WANTED)).config.max_consumers == MOST_CONSUMERS
    await js.delete_stream(subjects.WANTED)
    await ensure(js, replace(wanted))
    assert (await js.stream_info(subjects.WANTED)).config.max_consumers == MOST_CONSUMERS


@pytest.mark.parametrize(
    ("name", "kept"),
    [(subjects.WANTED, subjects.wanted("n1", "vm", "v1")), (subjects.REPORTS, subjects.report("n1", "vm", "v1"))],
)
async def test_what_an_earlier_version_kept_by_vm_alone_is_removed(bare: Client, name: str, kept: str) -> None:
    js = bare.jetstream()
    config = next(config for config in platform_streams(1) if config.name == name)
    word = "wanted" if name == subjects.WANTED else "reports"
    earlier = [f"nebula.nodes.{node}.{word}.{vm}" for node in ("n1", "n2") for vm in ("v1", "v2")]
    await js.add_stream(replace(config, subjects=[f"nebula.nodes.*.{word}.*", *(config.subjects or [])]))
    for subject in (*earlier, *earlier, kept):
        await js.publish(subject, b"kept")
    for _ in range(2):
        await ensure(js, replace(config))
        info = await js.stream_info(name, subjects_filter=">")
        assert info.state.subjects == {kept: 1}
        assert info.config.subjects == config.subjects


WEAK: dict[str, dict[str, Any]] = {
    "lacks deny_delete": {"deny_delete": False},
    "lacks deny_purge": {"deny_purge": False},
    "lacks allow_direct": {"allow_direct": False},
    "lacks allow_atomic": {"allow_atomic": False},
    "in memory": {"storage": StorageType.MEMORY},
    "covers": {"subjects": ["nebula.events.default.*.*"]},
}


@pytest.mark.parametrize("text", WEAK)
async def test_a_weaker_log_is_refused_with_what_it_lacks(bare: Client, text: str) -> None:
    js = bare.jetstream()
    await js.add_stream(replace(events_stream(1), **WEAK[text]))
    with pytest.raises(WeakStream, match=f"NEBULA_EVENTS.*{text}"):
        await ensure(js, events_stream(1))
    with pytest.raises(WeakStream):
        await ensure_all(js, 1)


async def test_fewer_copies_than_asked_are_refused(bare: Client) -> None:
    await ensure_all(bare.jetstream(), 1)
    with pytest.raises(WeakStream, match="1 replicas, 3 are required"):
        await ensure(bare.jetstream(), events_stream(3))


async def test_nobody_deletes_from_the_log(bare: Client) -> None:
    js = bare.jetstream()
    await ensure_all(js, 1)
    acknowledged = await js.publish("nebula.events.p.vm.v", b"{}")
    with pytest.raises(APIError):
        await js.delete_msg(subjects.EVENTS, acknowledged.seq)
    with pytest.raises(APIError):
        await js.purge_stream(subjects.EVENTS)
    with pytest.raises(APIError):
        await js.update_stream(replace(events_stream(1), deny_delete=False))
