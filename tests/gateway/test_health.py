"""`/healthz` asks: is a command decided, can the log store, are the read models kept; and says since when not."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import subjects
from runtime.bus.quick_client import QuickClient
from runtime.local.servers import Postgres
from tests.gateway.platform import Platform, platform
from tests.small_disk import fill, mounted, needs_root
from tests.waiting import eventually


async def health(api: Platform) -> tuple[int, dict[str, Any]]:
    answer = await api.http.get("/healthz")
    return answer.status_code, answer.json()


async def until(api: Platform, part: str, status: str) -> tuple[int, dict[str, Any]]:
    async def seen() -> tuple[int, dict[str, Any]] | None:
        code, body = await health(api)
        return (code, body) if body[part]["status"] == status else None

    found: tuple[int, dict[str, Any]] = await eventually(seen, f"{part} is {status}")
    return found


async def test_a_platform_that_works(api: Platform) -> None:
    code, body = await until(api, "projections", "ok")
    assert code == 200
    assert body["status"] in ("ok", "degraded")
    assert {each["name"] for each in body["managers"]} >= {"placement", "dispatch", "liveness", "deadlines", "notary"}
    assert body["lag_seconds"] >= 0


async def test_a_manager_that_fails_shows_as_degraded(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """It works all the same: 200. The handlers' own answer, with one thing changed in it."""
    assert isinstance(api.gateway.nc, QuickClient)
    request = api.gateway.nc.request_again

    async def failing(*given: Any, **more: Any) -> Any:
        answer = await request(*given, **more)
        said = json.loads(answer.data)
        if given[0] == subjects.command(subjects.SYSTEM, "health", "check"):
            said["ok"]["managers"][0]["failing_since"] = "2026-01-01T00:00:00Z"
        return type("Msg", (), {"data": json.dumps(said).encode()})

    def failed(body: dict[str, Any]) -> list[str]:
        return [each["name"] for each in body["managers"] if each["failing_since"]]

    async def shows() -> tuple[int, dict[str, Any]] | None:
        code, body = await health(api)
        return (code, body) if failed(body) else None

    async def well() -> bool:
        code, body = await health(api)
        status = "degraded" if body["parked"] else "ok"  # other tests share this platform
        return (code, body["status"], failed(body)) == (200, status, [])

    await eventually(well, "all is well")
    with monkeypatch.context() as patched:
        patched.setattr(api.gateway.nc, "request_again", failing)
        code, body = await eventually(shows, "it shows")
    assert (code, body["status"]) == (200, "degraded")
    assert len(failed(body)) == 1
    await eventually(well, "it is well again")


async def test_asking_often_makes_nothing_grow(api: Platform) -> None:
    js = api.side.nc.jetstream()
    await health(api)
    before = (await js.stream_info(subjects.HEALTH)).state.last_seq
    log = await api.side.store.last_position()
    for _ in range(50):
        await health(api)
    state = (await js.stream_info(subjects.HEALTH)).state
    assert state.messages == 1
    assert state.last_seq - before < 25
    assert await api.side.store.last_position() - log < 5


async def test_handlers_that_are_gone_or_stand_still_show(tmp_path: Path, postgres: Postgres) -> None:
    async with platform(tmp_path, postgres) as api:
        await until(api, "commands", "ok")
        process = api.side.processes[0]
        os.kill(process.pid, signal.SIGSTOP)
        code, body = await until(api, "commands", "unavailable")
        assert (code, body["status"]) == (503, "unavailable")
        assert body["commands"]["since"]
        os.kill(process.pid, signal.SIGCONT)
        await until(api, "commands", "ok")
        await api.side.stop_all()
        code, body = await until(api, "commands", "unavailable")
        assert (code, body["commands"]["detail"]) == (503, "no handlers answer")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", 48) as disk:
        yield disk


@needs_root
async def test_a_full_disk_shows(small_disk: Path, postgres: Postgres) -> None:
    async with platform(small_disk, postgres) as api:
        await until(api, "log", "ok")
        fill(small_disk / "ballast")

        async def shows() -> tuple[int, dict[str, Any]] | None:
            code, body = await health(api)
            return (code, body) if code == 503 else None

        _, body = await eventually(shows, "a full disk shows")
        assert "ok" not in (body["log"]["status"], body["status"])


@pytest.mark.parametrize(
    "said", [b"", b"hi", b"[]", b'{"ok": {}}', b'{"ok": {"log": 3, "managers": [1]}}', b"[" * 5000]
)
async def test_nonsense_from_handlers_is_unavailable(
    api: Platform, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.operators import health as looked

    async def answer(*_: Any, **__: Any) -> Any:
        return type("Msg", (), {"data": said})

    with monkeypatch.context() as patched:
        patched.setattr(api.gateway.nc, "request_again", answer)
        commands, _, managers = await looked.handlers(api.gateway)
    assert (commands["detail"], managers) == ("the answer of handlers is invalid", [])


async def test_numbers_that_json_has_not_are_not_passed_on(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(api.gateway.nc, QuickClient)
    request = api.gateway.nc.request_again

    async def answer(*given: Any, **more: Any) -> Any:
        said = b'{"ok": {"log": {"status": "ok"}, "managers": [{"name": "x", "last_run": NaN, "running": 1e999}]}}'
        asked = given[0] == subjects.command(subjects.SYSTEM, "health", "check")
        return type("Msg", (), {"data": said}) if asked else await request(*given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(api.gateway.nc, "request_again", answer)
        body = await eventually(lambda: told_of(api, "x"), "it is shown")
    assert body["managers"] == [{"name": "x", "last_run": None, "running": None}]


async def told_of(api: Platform, manager: str) -> dict[str, Any] | None:
    body = json.loads((await api.http.get("/healthz")).content, parse_constant=pytest.fail)
    return body if [each["name"] for each in body["managers"]] == [manager] else None


async def test_a_log_that_holds_less_than_was_read_of_it_shows(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost() -> int:
        return 1

    with monkeypatch.context() as patched:
        patched.setattr(api.gateway.store, "last_position", lost)
        code, body = await until(api, "projections", "unavailable")
    assert (code, body["status"]) == (503, "unavailable")
    assert "another log" in body["projections"]["detail"]
    await until(api, "projections", "ok")
