"""A role waits for its servers at its start and later, says so in one line, and ends where waiting mends nothing."""

import signal
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from runtime.local.child import find_program, free_port, spawn
from runtime.local.servers import NatsServer, Postgres
from tests.conftest import fresh_database
from tests.gate import Gate, gate
from tests.roles.processes import READERS, ROLES, RoleProcess, role
from tests.waiting import eventually

WAITS, ANSWERS = "waiting for a server", "the server answers"
SECRET = "sesame-open"
#: What each role says once it works beside the others.
READY = {
    "handlers": "handlers ready",
    "projections": "projections run",
    "guest-data": "data source listens",
    "gateway": "gateway listens",
    "node": "this daemon works for the node",
    "simulation": "all nodes run",
}
#: Tries of which only the first is told.
TRIES = 3


def through(url: str, way: Gate) -> str:
    """The same URL by way of a gate, with a password in it where it has no user."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0] or f"somebody:{SECRET}"
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{way.port}"))


async def tried(way: Gate, processes: int) -> None:
    """Until each of them has tried several times."""
    before = way.broken
    await way.break_off()
    await eventually(lambda: way.broken >= before + TRIES * processes, "they try again and again")


async def all_say(started: list[RoleProcess], *words: str, times: int = 1) -> None:
    for running in started:
        await running.says(*words, times=times)


async def test_roles_wait_for_their_servers(nats_server: NatsServer, postgres: Postgres, tmp_path: Path) -> None:
    """At their start, later, and at their end: one line when the waiting begins, one when it is over."""
    dsn = await fresh_database(postgres)
    async with gate(nats_server.port) as way, gate(postgres.port) as database, AsyncExitStack() as stack:
        url = through(nats_server.url, way)
        started = [await stack.enter_async_context(role(name, tmp_path, url, through(dsn, database))) for name in ROLES]
        readers = [running for running in started if running.name in READERS]
        await all_say(started, WAITS, "NATS at nats://***@")
        await tried(way, len(started))
        await way.open()
        await all_say(started, ANSWERS, "NATS at")
        await all_say(readers, WAITS, "Postgres at 127.0.0.1")
        await tried(database, len(readers))
        await database.open()
        await all_say(readers, ANSWERS, "Postgres at")
        for running in started:
            await running.says(READY[running.name])

        await way.close()
        await database.close()
        await all_say(started, WAITS, "NATS at", times=2)
        gateways = [running for running in readers if running.name == "gateway"]  # projections have nothing to write
        await all_say(gateways, WAITS, "Postgres at", times=2)
        await way.open()
        await database.open()
        await all_say(started, ANSWERS, "NATS at", times=2)
        await all_say(gateways, ANSWERS, "Postgres at", times=2)

        await way.close()
        await database.close()
        await all_say(started, WAITS, "NATS at", times=3)
        for running in started:
            running.child.process.send_signal(signal.SIGTERM)
        for running in started:
            assert await running.ends() == 0, running.log.read_text()
            said = running.log.read_text()
            assert "Traceback" not in said
            assert SECRET not in said
            assert postgres.password not in said
            assert len(running.said(WAITS, "NATS at")) == 3
            assert len(running.said(ANSWERS, "NATS at")) == 2


async def test_a_connection_that_the_server_ends_for_good_ends_the_role(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """nats-py closes it at such an error, and does not reconnect: the role would live on, deaf."""
    async with gate(nats_server.port) as way, AsyncExitStack() as stack:
        await way.open()
        url = through(nats_server.url, way)
        started = [await stack.enter_async_context(role(name, tmp_path, url)) for name in ROLES]
        for running in started:
            await running.says("answering guest-data" if running.name == "projections" else READY[running.name])
        way.say(b"-ERR 'User Authentication Revoked'\r\n")
        for running in started:
            await ends_at_once(running, "user authentication revoked")


async def ends_at_once(running: RoleProcess, *words: str) -> None:
    """With a line that has these words, and without a traceback or a secret."""
    assert await running.ends() == 2, running.log.read_text()
    said = running.log.read_text()
    assert running.said("the role cannot run", *words), said
    assert "Traceback" not in said
    assert SECRET not in said


async def test_a_role_that_nats_does_not_know_ends(tmp_path: Path) -> None:
    port, store = free_port(), tmp_path / "store"
    program = [str(find_program("nats-server")), "--addr", "127.0.0.1", "--port", str(port), "--user", "them"]
    server = await spawn("nats-server", [*program, "--pass", SECRET], tmp_path / "nats.log")
    try:
        async with AsyncExitStack() as stack:
            started = [
                await stack.enter_async_context(
                    role(name, tmp_path, f"nats://127.0.0.1:{port}", NATS_USER="us", NATS_PASSWORD=SECRET + "-not")
                )
                for name in ROLES
            ]
            for running in started:
                await ends_at_once(running, "'Authorization Violation'", "NEBULA_NATS_PASSWORD", f"127.0.0.1:{port}")
        url = f"nats://them:{SECRET}@127.0.0.1:{port}"
        async with role("handlers", store.parent, url, HOME=str(tmp_path)) as running:
            await ends_at_once(running, "no JetStream")
    finally:
        await server.kill()


async def test_a_role_that_postgres_does_not_know_ends(
    nats_server: NatsServer, postgres: Postgres, tmp_path: Path
) -> None:
    good = urlsplit(await fresh_database(postgres))
    place = f"127.0.0.1:{postgres.port}"
    cases = {
        "password": (good._replace(netloc=f"nebula:{SECRET}@{place}"), "password authentication failed"),
        "user": (good._replace(netloc=f"nobody:{SECRET}@{place}"), "nobody"),
        "database": (good._replace(path="/none_of_ours"), "none_of_ours"),
    }
    async with AsyncExitStack() as stack:
        started = []
        for case, (dsn, words) in cases.items():
            for name in READERS:
                folder = tmp_path / case
                folder.mkdir(exist_ok=True)
                starting = role(name, folder, nats_server.url, urlunsplit(dsn))
                started.append((await stack.enter_async_context(starting), words))
        for running, words in started:
            await ends_at_once(running, words, f"Postgres at {place}", "NEBULA_POSTGRES_DSN")


async def test_a_node_waits_for_libvirt(nats_server: NatsServer, tmp_path: Path) -> None:
    uri = f"qemu+unix:///system?socket={tmp_path}/none"
    async with (
        role("handlers", tmp_path, nats_server.url) as handlers,
        role("node", tmp_path, nats_server.url, LIBVIRT_URI=uri) as running,
    ):
        await handlers.says("handlers ready")
        await running.says("cannot register this node; it will try again", f"{tmp_path}/none")
        assert running.child.running
        assert "Traceback" not in running.log.read_text()
