"""The servers we start: what they acknowledged survives SIGKILL, and they start again where they were."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import nats
import psycopg
import pytest

from runtime.local import libvirtd, ports, servers
from runtime.local.child import ServerError, free_port, remembered_port, spawn
from runtime.local.libvirtd import ensure_libvirt
from runtime.local.servers import POSTGRES_PORT, create_database, start_nats, start_postgres


@pytest.fixture
def home(servers_home: Path, request: pytest.FixtureRequest) -> Path:
    return servers_home / str(request.node.name)


async def test_nats_keeps_what_it_acknowledged_when_killed(home: Path) -> None:
    server = await start_nats(home)
    client = await nats.connect(server.url)
    await client.jetstream().add_stream(name="LOG", subjects=["log.>"])
    acknowledged = await client.jetstream().publish("log.a", b"kept")
    await client.close()

    await server.kill()
    again = await start_nats(home, port=server.port)

    assert again.url == server.url
    client = await nats.connect(again.url)
    message = await client.jetstream().get_msg("LOG", acknowledged.seq)
    assert message.data == b"kept"
    await client.close()
    await again.stop()
    assert not again.child.running


async def test_a_nats_server_left_behind_is_replaced(home: Path) -> None:
    left = await start_nats(home)
    again = await start_nats(home, port=left.port)
    assert not left.child.running
    await again.stop()


async def test_a_taken_port_is_named(home: Path) -> None:
    first = await start_nats(home)
    with pytest.raises(ServerError, match=f"port {first.port} is used"):
        await start_nats(home / "other", port=first.port)
    assert first.child.running
    await first.stop()


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The ports that are chosen next; another program takes the one that is its own, right after the choice."""
    chosen: list[int] = []
    monkeypatch.setattr(ports, "free_port", lambda: chosen.pop(0) if chosen else free_port())
    monkeypatch.setattr(servers, "require_free", lambda port: None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        chosen.append(other.getsockname()[1])
        yield chosen


@pytest.mark.parametrize("monitoring", [False, True])
async def test_nats_takes_other_ports_if_one_is_lost(home: Path, another: list[int], monitoring: bool) -> None:
    taken = another[0]
    if monitoring:
        another.insert(0, free_port())
    server = await start_nats(home)
    assert another == []
    assert taken not in (server.port, server.monitor)
    await server.stop()


async def test_postgres_takes_another_port_if_one_is_lost(home: Path, another: list[int]) -> None:
    taken = another[0]
    server = await start_postgres(home, durable=False)
    assert another == []
    assert server.port != taken
    assert remembered_port(home / POSTGRES_PORT) == server.port
    await server.stop()


def test_no_port_is_given_twice() -> None:
    found = [free_port() for _ in range(300)]
    assert len(set(found)) == len(found)


async def test_nats_says_why_it_does_not_start(home: Path) -> None:
    home.mkdir()
    (home / "bad.conf").write_text("jetstream {")
    with pytest.raises(ServerError, match="Unexpected EOF") as raised:
        await start_nats(home, conf=home / "bad.conf")
    assert "\n" not in str(raised.value)


async def test_postgres_keeps_what_it_committed_when_killed(home: Path) -> None:
    server = await start_postgres(home)
    async with await psycopg.AsyncConnection.connect(server.dsn) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    await server.kill()
    again = await start_postgres(home)

    assert again.dsn == server.dsn
    async with await psycopg.AsyncConnection.connect(again.dsn) as connection:
        assert await (await connection.execute("SELECT answer FROM kept")).fetchone() == (42,)
    await again.stop()


async def test_postgres_asks_for_the_password(home: Path) -> None:
    server = await start_postgres(home, durable=False)
    assert (home / "postgres.password").stat().st_mode & 0o777 == 0o600
    with pytest.raises(psycopg.OperationalError):
        await psycopg.AsyncConnection.connect(server.dsn.replace(server.password, "wrong"))
    assert await create_database(server, "nebula") == server.dsn
    await server.stop()


async def test_a_child_is_stopped_even_if_it_ignores_the_request(home: Path) -> None:
    child = await spawn("deaf", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], home / "log")
    while not child.log.read_text():
        os.sched_yield()
    await child.stop(grace=0.2)
    assert child.process.returncode == -signal.SIGKILL


async def test_libvirt_of_another_host_is_used_as_it_is() -> None:
    driver = await ensure_libvirt("test:///default")
    assert (driver.virt_type, driver.host_address, driver.started_pids) == ("test", "192.168.122.1", ())
    with pytest.raises(ServerError, match="no network nowhere"):
        await ensure_libvirt("test:///default", network="nowhere")


async def test_libvirt_without_the_daemon_that_keeps_consoles_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No guest would start: libvirtd answers, and does not start virtlogd by itself."""
    started: list[str] = []

    async def daemon(name: str) -> tuple[int, ...]:
        started.append(name)
        return (1,)

    (tmp_path / "libvirt").mkdir()
    monkeypatch.setattr(libvirtd, "RUN", tmp_path)
    monkeypatch.setattr(libvirtd, "_daemon", daemon)
    place = tmp_path / "libvirt" / "virtlogd-sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(place))
    assert await libvirtd._log_daemon() == (1,), "a socket that nobody listens on"
    place.unlink()
    assert await libvirtd._log_daemon() == (1,), "no socket"
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(place))
        there.listen()
        assert await libvirtd._log_daemon() == ()
    assert started == ["virtlogd", "virtlogd"]
