"""Commands of whoever runs the platform, and `nebula up`, say in one line that a server is away or refuses us."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli.local import servers
from runtime.local.child import find_program, free_port, spawn
from runtime.local.servers import NatsServer, Postgres
from runtime.tasks import patience
from runtime.tasks.backoff import Backoff
from runtime.tasks.patience import CannotRun
from tests.cli.conftest import Nebula, environment
from tests.waiting import eventually

SECRET = "sesame-open"
CLOSED = "127.0.0.1:1"


@pytest.fixture(scope="module")
async def closed_to_us(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The port of a NATS server that wants another password."""
    port, folder = free_port(), tmp_path_factory.mktemp("nats")
    command = [str(find_program("nats-server")), "--addr", "127.0.0.1", "--port", str(port), "--user", "them"]
    server = await spawn("nats-server", [*command, "--pass", f"not-{SECRET}"], folder / "nats.log")

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await eventually(listens, "it listens")
    yield f"127.0.0.1:{port}"
    await server.kill()


@pytest.mark.parametrize("command", [("verify", "log", "--no-key"), ("verify", "views"), ("rebuild",)])
def test_a_server_that_is_away(command: tuple[str, ...], nebula: Nebula, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEBULA_NATS_URL", f"nats://us:{SECRET}@{CLOSED}")
    monkeypatch.setenv("NEBULA_POSTGRES_DSN", f"postgresql://us:{SECRET}@{CLOSED}/none")
    ran = nebula(*command)
    assert ran.status == 3
    assert ran.err.startswith(f"error: the log of NATS at nats://***@{CLOSED} does not answer: ")
    assert (ran.out, ran.err.count("\n"), SECRET in ran.err) == ("", 1, False)


def test_a_server_that_does_not_know_us(nebula: Nebula, monkeypatch: pytest.MonkeyPatch, closed_to_us: str) -> None:
    monkeypatch.setenv("NEBULA_NATS_URL", f"nats://{closed_to_us}")
    monkeypatch.setenv("NEBULA_NATS_USER", "us")
    monkeypatch.setenv("NEBULA_NATS_PASSWORD", SECRET)
    for _ in range(50):  # the server breaks the connection off behind its answer, which may be lost
        ran = nebula("verify", "log", "--no-key")
        if ran.status == 1:
            break
        assert ran.status == 3
    assert ran.err.startswith(f"error: NATS at nats://{closed_to_us} refuses the connection: ")
    assert "NEBULA_NATS_PASSWORD" in ran.err
    assert (ran.err.count("\n"), SECRET in ran.err) == (1, False)


def test_a_database_that_is_away_or_does_not_know_us(
    nebula: Nebula, monkeypatch: pytest.MonkeyPatch, nats_server: NatsServer, postgres: Postgres, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEBULA_HOME", str(tmp_path))
    monkeypatch.setenv("NEBULA_NATS_URL", nats_server.url)
    monkeypatch.setenv("NEBULA_POSTGRES_DSN", f"postgresql://us:{SECRET}@{CLOSED}/none")
    away = nebula("verify", "views")
    assert (away.status, away.err.count("\n")) == (3, 1), away.err
    assert away.err.startswith(f"error: Postgres at {CLOSED} cannot be reached: ")
    wrong = urlsplit(postgres.dsn)._replace(netloc=f"nebula:{SECRET}@127.0.0.1:{postgres.port}")
    monkeypatch.setenv("NEBULA_POSTGRES_DSN", wrong.geturl())
    refused = nebula("rebuild")
    assert (refused.status, refused.err.count("\n")) == (1, 1), refused.err
    assert refused.err.startswith(f"error: Postgres at 127.0.0.1:{postgres.port} refuses the connection: ")
    assert SECRET not in away.err + refused.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NATS_URL", f"http://us:{SECRET}@h"),
        ("NATS_URL", f"nats://us:{SECRET}/x@h:4222"),
        ("NATS_URL", "nats://h:99999"),
        ("NATS_URL", ""),
        ("POSTGRES_DSN", f"postgresql://us:{SECRET}/x@h/d"),
        ("POSTGRES_DSN", f"host=h password={SECRET} nonsense"),
        ("POSTGRES_DSN", "postgresql://h:99999/d"),
    ],
)
def test_an_address_that_makes_no_sense(name: str, value: str, nebula: Nebula, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"NEBULA_{name}", value)
    ran = nebula("verify", "views")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert ran.err.startswith(f"nebula: NEBULA_{name}: ")
    assert SECRET not in ran.err


async def test_up_waits_for_a_server_that_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    errors: list[Exception] = [OSError("refused"), OSError("refused"), TimeoutError()]
    monkeypatch.setattr(servers, "say", said.append)
    monkeypatch.setattr(patience, "RETRY", Backoff(first=0.0, last=0.0))

    async def reach() -> str:
        if errors:
            raise errors.pop()
        return "there"

    assert await servers.outside("nats", "NATS at nats://h", reach) == "there"
    assert said == ["nats         waiting for NATS at nats://h: TimeoutError()"]
    errors.append(CannotRun("it does not know us"))
    with pytest.raises(CannotRun):
        await servers.outside("nats", "NATS at nats://h", reach)


def test_up_with_servers_of_others(home: Path, closed_to_us: str) -> None:
    command = [sys.executable, "-m", "cli.main", "up"]
    given = {"NATS_USER": "us", "NATS_PASSWORD": SECRET, "NATS_URL": f"nats://{closed_to_us}"}
    refused = subprocess.run(command, env=environment(home, **given), capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: NATS at nats://{closed_to_us} refuses the connection: ")
    assert refused.stderr.count("\n") == 1
    assert SECRET not in refused.stdout + refused.stderr
    given["NATS_URL"] = f"nats://us:{SECRET}@{CLOSED}"
    with subprocess.Popen(command, env=environment(home, **given), stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        lines = [waiting.stdout.readline(), waiting.stdout.readline()]
        waiting.terminate()
        rest = waiting.stdout.read()
    assert waiting.returncode == 0
    assert lines[1].startswith(f"nats         waiting for NATS at nats://***@{CLOSED}: ")
    assert rest == "stopping; guests keep running\n"
