"""What cannot be kept is refused, with one error that says what to change, and nothing is stored."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats
import pytest
from eventsourcing.persistence import (
    DataError,
    InfrastructureFactory,
    InfrastructureFactoryError,
    NotSupportedError,
    ProgrammingError,
    Tracking,
)
from eventsourcing.popo import POPOTrackingRecorder
from eventsourcing.utils import Environment
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from eventstore.library.records import Names
from runtime.bus import streams
from runtime.local.child import find_program, free_port, spawn
from tests.contracts import events
from tests.contracts.conftest import MakeFactory
from tests.contracts.events import history

# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bad", ["", "a.b", "*", "a>", "two words", "new\nline", "tab\t", "Ärger", "x" * 257])
def test_an_id_that_cannot_be_a_subject_token(make_factory: MakeFactory, bad: str) -> None:
    recorder = make_factory().process_recorder()
    with pytest.raises(DataError, match="visible ASCII characters without"):
        recorder.insert_events([events.event(uuid4(), 1), events.event(bad, 1)])
    with pytest.raises(DataError, match="visible ASCII characters without"):
        recorder.select_events(bad)
    with pytest.raises(DataError, match="application name"):
        recorder.insert_events([], tracking=Tracking(bad, 1))
    assert recorder.max_notification_id() is None


@pytest.mark.parametrize("size", [1024 * 1024, 1024 * 1024 - 100, 5_000_000])
@pytest.mark.parametrize("others", [0, 2])
def test_a_state_over_the_servers_limit(make_factory: MakeFactory, size: int, others: int) -> None:
    """The server would answer by closing the connection."""
    recorder = make_factory().application_recorder()
    some = uuid4()
    with pytest.raises(DataError, match=r"over the server's limit of 1048576: .* max_payload"):
        recorder.insert_events([*history(uuid4(), 1, others), events.event(some, 1, b"x" * size)])
    assert recorder.insert_events(history(some, 1, 1)) == [1]


async def test_a_state_over_the_streams_limit(make_factory: MakeFactory, environment: dict[str, str]) -> None:
    await make_stream(environment, max_msg_size=5000)
    recorder = make_factory().application_recorder()
    for others in (0, 2):
        with pytest.raises(DataError, match="max_msg_size"):
            recorder.insert_events([*history(uuid4(), 1, others), events.event(uuid4(), 1, b"x" * 6000)])
    assert recorder.max_notification_id() is None


def test_more_events_at_once_than_the_server_stores_as_one(make_factory: MakeFactory) -> None:
    recorder = make_factory().application_recorder()
    with pytest.raises(NotSupportedError, match=r"1001 events cannot be stored in one batch .*append fewer at a time"):
        recorder.insert_events(history(uuid4(), 1, 1001))
    assert recorder.insert_events(history(uuid4(), 1, 1000)) == list(range(1, 1001))


def test_a_negative_version(make_factory: MakeFactory) -> None:
    with pytest.raises(DataError, match="versions begin with 0 or 1"):
        make_factory().aggregate_recorder().insert_events([events.event(uuid4(), -1)])


# ── what a log cannot carry ─────────────────────────────────────────────────────────────────────────────────────────


def test_tracking_beside_events_needs_a_process_recorder(make_factory: MakeFactory) -> None:
    factory = make_factory()
    for recorder in (factory.application_recorder(), factory.aggregate_recorder()):
        with pytest.raises(NotSupportedError, match="use a process recorder"):
            recorder.insert_events(history(uuid4(), 1, 1), tracking=Tracking("upstream", 1))
        recorder.insert_events(history(uuid4(), 1, 1), tracking=None)


def test_a_view_belongs_into_a_database(make_factory: MakeFactory) -> None:
    view: Any = POPOTrackingRecorder
    with pytest.raises(NotSupportedError, match=r"_PERSISTENCE_MODULE=eventsourcing\.postgres"):
        make_factory().tracking_recorder(view)
    for setting in ("TRACKING_RECORDER_TOPIC", "PROCESS_RECORDER_TOPIC", "APPLICATION_RECORDER_TOPIC"):
        factory = make_factory(**{setting: "eventsourcing.popo:POPOTrackingRecorder"})
        make = getattr(factory, setting.removesuffix("_TOPIC").lower())
        with pytest.raises(NotSupportedError, match="POPOTrackingRecorder"):
            make()


def test_no_recorder_for_dynamic_consistency_boundaries(environment: dict[str, str]) -> None:
    from eventsourcing.dcb.persistence import DCBInfrastructureFactory

    with pytest.raises(InfrastructureFactoryError, match=r"Found 0 .* 'eventstore\.library\.recorder'"):
        DCBInfrastructureFactory.construct(Environment("", environment))


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("NATS_URL", "localhost:4222"),
        ("NATS_URL", "nats://one:4222,http://two:4222"),
        ("NATS_STREAM", "NEBULA_EVENTS"),
        ("NATS_STREAM", "a.b"),
        ("NATS_STREAM", "x" * 101),
        ("NATS_SUBJECT_PREFIX", "nebula.accounts"),
        ("NATS_SUBJECT_PREFIX", "accounts."),
        ("NATS_SUBJECT_PREFIX", "acc*unts"),
        ("NATS_REPLICAS", "0"),
        ("NATS_REPLICAS", "three"),
        ("NATS_CREDS", "/nowhere/at.all"),
        ("NATS_CREDS", "/etc/hostname"),
        ("NATS_TIMEOUT", "soon"),
        ("NATS_TIMEOUT", "nan"),
        ("CREATE_TABLE", "maybe"),
    ],
)
def test_a_wrong_setting_is_named(make_factory: MakeFactory, setting: str, value: str) -> None:
    with pytest.raises(OSError, match=f"{setting}={value!r}: ".replace("*", r"\*")):
        make_factory(**{setting: value})


def test_all_wrong_settings_are_named_at_once(make_factory: MakeFactory) -> None:
    with pytest.raises(OSError, match=r"NATS_STREAM=.*; NATS_REPLICAS="):
        make_factory(NATS_STREAM="a b", NATS_REPLICAS="9")


def test_an_application_named_as_the_platform_needs_names_of_its_own(make_factory: MakeFactory) -> None:
    with pytest.raises(OSError, match=r"NATS_STREAM='NEBULA_EVENTS': .*NATS_SUBJECT_PREFIX='nebula'"):
        make_factory("Nebula", NATS_STREAM="", NATS_SUBJECT_PREFIX="")
    make_factory("Nebula", NEBULA_NATS_STREAM="OTHER", NEBULA_NATS_SUBJECT_PREFIX="other")


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def make_stream(environment: dict[str, str], **changes: Any) -> None:
    """The stream as it should be, but for some changes."""
    names = Names(environment["NATS_SUBJECT_PREFIX"], "events")
    wanted: dict[str, Any] = {
        "name": environment["NATS_STREAM"],
        "subjects": names.stream_subjects,
        "max_msg_size": -1,
        "duplicate_window": None,
    }
    config: StreamConfig = replace(streams.events_stream(1), **{**wanted, **changes})
    client = await nats.connect(environment["NATS_URL"])
    await client.jetstream().add_stream(config)
    await client.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deny_delete": False}, "deny_delete"),
        ({"deny_purge": False}, "deny_purge"),
        ({"allow_direct": False}, "allow_direct"),
        ({"allow_atomic": False}, "allow_atomic"),
        ({"subjects": ["elsewhere.{prefix}.*"]}, "covers"),
        ({"storage": StorageType.MEMORY}, "file storage"),
        ({"retention": RetentionPolicy.INTEREST}, "retention"),
        ({"max_age": 3600}, "max_age is .* old events are dropped"),
        ({"max_msgs": 1000}, "max_msgs is 1000"),
        ({"max_bytes": 1_000_000}, "max_bytes is 1000000"),
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject is 5"),
    ],
)
async def test_a_stream_that_promises_less(
    make_factory: MakeFactory, environment: dict[str, str], changes: dict[str, Any], said: str
) -> None:
    if "subjects" in changes:
        changes = {"subjects": [s.format(prefix=environment["NATS_SUBJECT_PREFIX"]) for s in changes["subjects"]]}
    await make_stream(environment, **changes)
    with pytest.raises(ProgrammingError, match=f"{environment['NATS_STREAM']}.*{said}"):
        make_factory().application_recorder()


async def test_a_stream_with_fewer_replicas(make_factory: MakeFactory, environment: dict[str, str]) -> None:
    await make_stream(environment)
    with pytest.raises(ProgrammingError, match="it has 1 replicas, and NATS_REPLICAS asks for 3"):
        make_factory(NATS_REPLICAS="3").application_recorder()


async def test_a_missing_stream_that_is_not_to_be_made(make_factory: MakeFactory, environment: dict[str, str]) -> None:
    factory = make_factory(CREATE_TABLE="no")
    with pytest.raises(ProgrammingError, match=r"does not exist: .* CREATE_TABLE"):
        factory.application_recorder()
    await make_stream(environment)
    assert factory.application_recorder().insert_events(history(uuid4(), 1, 1)) == [1]


# ── servers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def without_jetstream(tmp_path: Path) -> AsyncIterator[str]:
    port = free_port()
    program = find_program("nats-server")
    child = await spawn("nats-server", [str(program), "-a", "127.0.0.1", "-p", str(port)], tmp_path / "nats.log")
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        except OSError:
            await asyncio.sleep(0.02)
    writer.close()
    yield f"nats://127.0.0.1:{port}"
    await child.kill()


async def test_a_server_without_jetstream(make_factory: MakeFactory, without_jetstream: str) -> None:
    factory = make_factory(NATS_URL=without_jetstream)
    with pytest.raises(NotSupportedError, match="no JetStream: enable it"):
        await asyncio.to_thread(factory.application_recorder)


@pytest.fixture
async def old_server() -> AsyncIterator[str]:
    """Greets as a server of a version that cannot store several messages as one."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "X", "version": "2.11.9", "headers": True, "max_payload": 1048576, "jetstream": True}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_a_server_that_is_too_old(make_factory: MakeFactory, old_server: str) -> None:
    factory = make_factory(NATS_URL=old_server)
    with pytest.raises(NotSupportedError, match=r"2\.11\.9 cannot .*: use 2\.12 or newer"):
        await asyncio.to_thread(factory.application_recorder)


def test_the_module_is_found_by_its_name(environment: dict[str, str]) -> None:
    factory: Any = InfrastructureFactory.construct(Environment("", environment))
    assert type(factory).__name__ == "JetStreamFactory"
    factory.close()
