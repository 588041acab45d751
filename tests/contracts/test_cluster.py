"""The same contracts on three servers with three copies of each stream, where any copy may answer a read."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import nats
import pytest
from eventsourcing.tests import application
from nats.errors import Error as NatsError

from runtime.bus import bus, streams
from runtime.local.child import free_port
from runtime.local.servers import NATS_CONF, NatsServer, start_nats
from runtime.settings import Common
from tests.contracts import test_persistence as on_one_server
from tests.contracts.conftest import MakeFactory
from tests.contracts.events import history
from tests.roles.processes import role


@pytest.fixture(scope="module")
async def cluster(servers_home: Path) -> AsyncIterator[list[NatsServer]]:
    """Synced lazily: with a copy elsewhere that is what a cluster may do, and three share this disk."""
    routes = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    members: list[NatsServer] = []
    for number, listen in enumerate(routes):
        home = servers_home / f"cluster-{number}"
        home.mkdir()
        conf = home / "nats.conf"
        others = ", ".join(f'"nats://{route}"' for route in routes)
        alone = NATS_CONF.read_text().replace("server_name: nebula", f"server_name: n{number}")
        conf.write_text(
            alone.replace("sync_interval: always", "")
            + f'cluster {{ name: test, listen: "{listen}", routes: [{others}] }}\n'
        )
        members.append(await start_nats(home, conf=conf))
    await elected(members[0])
    yield members
    for member in members:
        await member.kill()


async def elected(member: NatsServer) -> None:
    """Until the servers have found together: before that, no stream can be made."""
    client = await nats.connect(member.url)
    async with asyncio.timeout(60):
        while True:
            try:
                await client.jetstream(timeout=1).add_stream(name="READY", num_replicas=3)
                break
            except NatsError:
                await asyncio.sleep(0.1)
    await client.close()


@pytest.fixture
def environment(cluster: list[NatsServer]) -> dict[str, str]:
    name = f"t{uuid4().hex}"
    return {
        "PERSISTENCE_MODULE": "eventstore.library.recorder",
        "NATS_URL": random.choice(cluster).url,
        "NATS_STREAM": name.upper(),
        "NATS_SUBJECT_PREFIX": name,
        "NATS_TIMEOUT": "30",  # the machine may be slow
        "NATS_REPLICAS": "3",
    }


class TestAggregateRecorder(on_one_server.TestAggregateRecorder):
    pass


class TestApplicationRecorder(on_one_server.TestApplicationRecorder):
    pass


class TestProcessRecorder(on_one_server.TestProcessRecorder):
    pass


class TestExampleApplication(application.ExampleApplicationTestCase):
    expected_factory_topic = "eventstore.library.recorder:JetStreamFactory"


class TestApplication(application.ApplicationTestCase):
    pass


def test_what_was_written_is_read_wherever_one_is_connected(
    make_factory: MakeFactory, cluster: list[NatsServer]
) -> None:
    assert os.environ["NATS_REPLICAS"] == "3"
    for member in cluster:
        recorder = make_factory(NATS_URL=member.url).application_recorder()
        for _ in range(50):
            some = uuid4()
            ids = recorder.insert_events(history(some, 1, 2))
            assert ids is not None
            assert recorder.select_events(some) == history(some, 1, 2)
            assert recorder.max_notification_id() == ids[-1]
            assert [n.id for n in recorder.select_notifications(ids[0], 10)] == ids


async def test_handlers_wait_for_a_log_that_lost_its_leader(cluster: list[NatsServer], tmp_path: Path) -> None:
    """Most of the servers stand still. As soon as one of them is back, the log has a leader, and handlers go on."""
    nc = await bus.connect(Common(nats_url=cluster[0].url), "tests")
    await streams.ensure_all(nc.jetstream(), 3)
    await nc.close()
    for member in cluster[1:]:
        os.kill(member.pid, signal.SIGSTOP)
    try:
        async with role("handlers", tmp_path, cluster[0].url, NATS_REPLICAS="3") as running:
            await running.says("waiting for a server")
            os.kill(cluster[1].pid, signal.SIGCONT)
            await running.says("handlers ready")
            assert len(running.said("waiting for a server")) == len(running.said("the server answers"))
            assert "Traceback" not in running.log.read_text()
    finally:
        for member in cluster[1:]:
            os.kill(member.pid, signal.SIGCONT)
