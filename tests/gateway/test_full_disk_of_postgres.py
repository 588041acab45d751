"""A full disk under Postgres: commands go on, reads answer or say 503, health says it, and the rows catch up."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cli.local import servers
from gateway.operators import health
from runtime.local.servers import postgres_port, start_postgres
from tests.gateway.platform import Platform, platform
from tests.small_disk import fill, mounted, needs_root
from tests.waiting import eventually

pytestmark = needs_root


@pytest.fixture
async def on_small_disk(open_folder: Path, tmp_path: Path) -> AsyncIterator[tuple[Platform, Path, Any]]:
    """A platform whose read models are on a disk of their own, and a file to fill that with."""
    with mounted(open_folder / "home", 160):
        home = open_folder / "home"
        start = partial(start_postgres, home, port=postgres_port(home), durable=False)
        async with servers.kept("postgres", start) as own, platform(tmp_path, own) as made:
            yield made, home / "ballast", own


async def until(made: Platform, good: bool) -> dict[str, Any]:
    async def seen() -> dict[str, Any] | None:
        answer = await made.http.get("/healthz")
        body: dict[str, Any] = answer.json()
        return body if (answer.status_code == 200) is good else None

    found: dict[str, Any] = await eventually(seen, f"health is {good}", 60)
    return found


async def work(made: Platform, first: int, count: int) -> None:
    """Commands that make rows; they need no Postgres."""
    for number in range(first, first + count):
        args = {"tag": f"tag-{number}", "name": f"{number} " + "x" * 50}
        await made.side.ok("system", "tag", "create", args)


async def shown(made: Platform, count: int) -> None:
    """Wait until so many tags are; read models that go on are well before they have caught up."""

    async def all_are() -> bool:
        return len((await made.get("/v1/tags?limit=500"))["items"]) == count

    await eventually(all_are, f"{count} tags are shown")


async def test_read_models_catch_up_once_there_is_room(
    on_small_disk: tuple[Platform, Path, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made, ballast, own = on_small_disk
    monkeypatch.setattr(health, "STILL", 1.0)
    fill(ballast)
    await work(made, 0, 250)
    body = await until(made, False)
    assert "stand still" in body["projections"]["detail"]
    assert body["lag"] > 0
    for path in ("/v1/projects", "/v1/tags", "/v1/operations"):
        assert (await made.http.get(path)).status_code == 200
    said = capfd.readouterr()
    told = [line for line in (said.out + said.err).splitlines() if "projections wait" in line]
    assert len([line for line in told if "schema=nebula_past" not in line]) == 1, "(the past says it for itself)"
    ballast.unlink()
    await until(made, True)
    await shown(made, 250)
    said = capfd.readouterr()
    assert "projections go on" in said.out + said.err
    assert "Traceback" not in said.out + said.err
    assert own.child.running


async def test_a_server_that_ends_for_want_of_room_comes_back(
    on_small_disk: tuple[Platform, Path, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Postgres gives up where it cannot write its log ahead."""
    made, ballast, own = on_small_disk
    fill(ballast)
    while own.child.running:
        with contextlib.suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(own.dsn, autocommit=True) as conn:
                await conn.execute("SELECT pg_logical_emit_message(false, 'x', repeat('y', 3000000))")
    body = await until(made, False)
    assert body["postgres"]["status"] == "unavailable"
    assert (await made.http.get("/v1/tags")).status_code == 503
    await work(made, 0, 20)
    said = ""

    def told() -> bool:
        nonlocal said
        said += capfd.readouterr().out
        return "is full" in said

    await eventually(told, "the keeper says that the disk is full")
    ballast.unlink()
    await until(made, True)
    await shown(made, 20)
    assert said.count("is full") == 1
