"""The server is away, hangs or dies while an application works: an error after a while, nothing lost or doubled."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import Notification, OperationalError, StoredEvent

from runtime.local.child import free_port
from runtime.local.servers import NatsServer, start_nats
from tests.contracts import events
from tests.contracts.conftest import MakeFactory
from tests.contracts.events import history


class Server:
    """One that can be killed and come back where it was."""

    def __init__(self, running: NatsServer) -> None:
        self.running = running

    async def kill(self) -> None:
        await self.running.kill()

    async def come_back(self) -> None:
        self.running = await start_nats(self.running.home, port=self.running.port)

    def hang(self) -> None:
        os.kill(self.running.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.running.pid, signal.SIGCONT)


@pytest.fixture
async def server(servers_home: Path) -> AsyncIterator[Server]:
    made = Server(await start_nats(servers_home / uuid4().hex))
    yield made
    await made.running.kill()


@pytest.fixture
def recorder(server: Server, make_factory: MakeFactory) -> Any:
    return make_factory(NATS_URL=server.running.url, NATS_TIMEOUT="1").application_recorder()


async def insert(recorder: Any, stored_events: Sequence[StoredEvent]) -> Sequence[int]:
    ids: Sequence[int] = await asyncio.to_thread(recorder.insert_events, stored_events)
    return ids


@pytest.mark.parametrize("count", [1, 3])
async def test_a_retry_settles_what_a_hanging_server_left_open(server: Server, recorder: Any, count: int) -> None:
    some = uuid4()
    await insert(recorder, history(some, 1, 1))
    server.hang()
    with pytest.raises(OperationalError):
        await insert(recorder, history(some, 2, 1 + count))
    server.go_on()  # and what was sent arrives now
    assert await insert(recorder, history(some, 2, 1 + count)) == list(range(2, 2 + count))
    assert recorder.select_events(some) == history(some, 1, 1 + count)
    assert recorder.max_notification_id() == 1 + count


async def test_a_retry_stores_what_never_arrived(server: Server, recorder: Any) -> None:
    some = uuid4()
    await insert(recorder, history(some, 1, 1))
    await server.kill()
    with pytest.raises(OperationalError):
        await insert(recorder, history(some, 2, 3))
    with pytest.raises(OperationalError):
        await asyncio.to_thread(recorder.select_events, some)
    await server.come_back()
    assert await insert(recorder, history(some, 2, 3)) == [2, 3]
    assert recorder.select_events(some) == history(some, 1, 3)


async def test_kills_at_any_moment(server: Server, recorder: Any) -> None:
    """Each event once, in order, for the writer and for who follows."""
    some, last = uuid4(), 600
    seen: list[Notification] = []

    def write() -> None:
        for first in range(1, last, 2):
            while True:
                try:
                    batch = history(some, first, first + 1)
                    assert recorder.insert_events(batch) == [first, first + 1]
                    break
                except OperationalError:
                    pass

    def read() -> None:
        with recorder.subscribe() as subscription:
            while len(seen) < last:
                seen.append(next(subscription))

    work = asyncio.gather(asyncio.to_thread(write), asyncio.to_thread(read))
    for reached in (50, 200, 400):
        while len(seen) < reached:
            await asyncio.sleep(0.001)
        await server.kill()
        await server.come_back()
    await work
    assert [(n.id, n.originator_version) for n in seen] == [(n, n) for n in range(1, last + 1)]
    assert recorder.select_events(some) == history(some, 1, last)


async def test_a_server_that_is_not_there(make_factory: MakeFactory) -> None:
    factory = make_factory(NATS_URL=f"nats://someone:secret@127.0.0.1:{free_port()}", NATS_TIMEOUT="0.3")
    with pytest.raises(OperationalError, match=r"NATS does not answer at 127\.0\.0\.1:.* NATS_URL") as refused:
        await asyncio.to_thread(factory.application_recorder)
    assert "secret" not in str(refused.value)


async def test_a_connection_that_ended_for_good_is_replaced(server: Server, recorder: Any) -> None:
    some = uuid4()
    subscription = recorder.subscribe()
    await insert(recorder, history(some, 1, 1))
    assert (await asyncio.to_thread(next, subscription)).id == 1
    client = recorder._connection.run(recorder._connection.client)
    recorder._connection.run(client.close)
    await insert(recorder, [events.event(some, 2)])
    with subscription:
        assert (await asyncio.to_thread(next, subscription)).id == 2
