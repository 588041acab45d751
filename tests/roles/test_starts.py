"""A role that starts before its servers are there says so once, waits, and goes on by itself."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout

from runtime import patience
from runtime.child import Child, find_program, free_port, spawn
from runtime.patience import patiently, pauses
from runtime.servers import NATS_CONF, NatsServer
from tests.waiting import eventually


@asynccontextmanager
async def role(name: str, home: Path, nats_url: str, **more: str) -> AsyncIterator[tuple[Child, Path]]:
    env = {
        "NEBULA_HOME": str(home),
        "NEBULA_NATS_URL": nats_url,
        "NEBULA_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1/none",
        "NEBULA_HTTP_PORT": str(free_port()),
        "NEBULA_SEED_HOST": "127.0.0.1",
        "NEBULA_SEED_PORT": "0",
        "NEBULA_LIBVIRT_URI": "test:///default",
        "NEBULA_SIMULATE": "1",
        "NEBULA_LOG_FORMAT": "text",
        **more,
    }
    log = home / f"{name}.log"
    child = await spawn(name, [sys.executable, "-m", "cli.role", name], log, env=env)
    try:
        yield child, log
    finally:
        await child.kill()


async def clustered(home: Path, number: int, port: int, routes: list[int]) -> Child:
    """One server of a cluster; JetStream has no leader until most of them are there."""
    store = home / f"store-{number}"
    store.mkdir()
    conf = home / f"nats-{number}.conf"
    others = ", ".join(f'"nats://127.0.0.1:{route}"' for route in routes)
    text = NATS_CONF.read_text().replace("server_name: nebula", f"server_name: n{number}")
    text += f'cluster {{ name: test, listen: "127.0.0.1:{routes[number]}", routes: [{others}] }}\n'
    conf.write_text(text.replace("sync_interval: always", ""))
    env = {"NEBULA_NATS_PORT": str(port), "NEBULA_NATS_STORE": json.dumps(str(store))}
    return await spawn(
        f"nats-{number}", [str(find_program("nats-server")), "--config", str(conf)], home / f"n{number}.log", env=env
    )


async def test_handlers_wait_for_a_log_without_a_leader(tmp_path: Path) -> None:
    routes = [free_port(), free_port(), free_port()]
    servers = [await clustered(tmp_path, 0, port := free_port(), routes)]
    try:
        async with role("handlers", tmp_path, f"nats://127.0.0.1:{port}") as (child, log):
            await eventually(lambda: "what=JetStream" in log.read_text(), "it says what it waits for")
            servers.append(await clustered(tmp_path, 1, free_port(), routes))
            await eventually(lambda: "handlers ready" in log.read_text(), "it goes on by itself")
            said = log.read_text()
            assert child.running
            assert said.count("waiting for a server") - said.count("the server answers") == 0
            assert said.count("what=JetStream") == 2
            assert "Traceback" not in said
    finally:
        for server in servers:
            await server.kill()


@pytest.mark.parametrize("name", ["handlers", "projections", "gateway", "node", "simulation"])
async def test_every_role_waits_for_the_bus(name: str, tmp_path: Path) -> None:
    """No NATS, no Postgres: one line, no traceback, and a signal still ends it."""
    async with role(name, tmp_path, f"nats://127.0.0.1:{free_port()}") as (child, log):
        await eventually(lambda: "waiting for a server" in log.read_text(), "it says what it waits for")
        await asyncio.sleep(1.5)  # several tries
        said = log.read_text()
        assert child.running
        assert said.count("waiting for a server") == 1
        assert "Traceback" not in said
        await child.stop()
        assert "Traceback" not in log.read_text()


async def test_a_server_that_stands_still_is_waited_for(nats_server: NatsServer, tmp_path: Path) -> None:
    os.kill(nats_server.pid, signal.SIGSTOP)
    try:
        async with role("handlers", tmp_path, nats_server.url) as (child, log):
            await eventually(lambda: "waiting for a server" in log.read_text(), "it says what it waits for")
            os.kill(nats_server.pid, signal.SIGCONT)
            await eventually(lambda: "handlers ready" in log.read_text(), "it goes on by itself")
            assert child.running
            assert "Traceback" not in log.read_text()
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)


async def test_what_waiting_cannot_mend_ends_the_role(nats_server: NatsServer, tmp_path: Path) -> None:
    """One server cannot hold three copies."""
    async with role("handlers", tmp_path, nats_server.url, NEBULA_NATS_REPLICAS="3") as (child, log):
        assert await child.process.wait() == 2
        said = log.read_text()
        assert "NEBULA_NATS_REPLICAS" in said
        assert "Traceback" not in said


async def test_only_what_passes_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "pauses", lambda: iter([0.0] * 10))
    tries: list[Exception] = [NatsError("no leader"), NatsTimeout(), OSError("refused"), TimeoutError()]

    async def attempt() -> str:
        if tries:
            raise tries.pop()
        return "there"

    assert await patiently("a server", attempt) == "there"
    tries.append(KeyError("a bug"))
    with pytest.raises(KeyError):
        await patiently("a server", attempt)


def test_pauses_grow_to_a_bound_and_differ() -> None:
    found = pauses(1.0, 8.0)
    seen = [next(found) for _ in range(200)]
    assert 0.5 <= seen[0] <= 1.0
    assert all(4.0 <= pause <= 8.0 for pause in seen[3:])
    assert len(set(seen)) > 100
