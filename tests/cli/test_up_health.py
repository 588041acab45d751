"""`nebula up` says when the platform becomes unwell, which part and why, and when it is well again."""

import asyncio
import json
from typing import Any

import pytest

from cli.local import health
from tests.waiting import eventually


class Scripted:
    """A gateway that answers `/healthz` with one document after the other, each as often as it is asked for."""

    def __init__(self, server: asyncio.Server) -> None:
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self.body = b""
        self.asked = 0

    async def answers(self, body: Any) -> None:
        """From now on; returns once it was asked for twice."""
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        before = self.asked
        await eventually(lambda: self.asked >= before + 2, "it looks again")


async def test_health_is_told_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(health, "say", said.append)
    monkeypatch.setattr(health, "HEALTH_SECONDS", 0.01)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline() not in (b"\r\n", b""):
            pass
        gateway.asked += 1
        writer.write(b"HTTP/1.1 503 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(gateway.body))
        writer.write(gateway.body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    gateway = Scripted(server)
    telling = asyncio.create_task(health.print_health(gateway.url))
    try:
        well = {"status": "ok", "log": {"status": "ok"}, "lag": 3, "managers": [], "parked": 0}
        await gateway.answers(well)
        assert said == []
        away = {"status": "unavailable", "since": "2026-01-01T00:00:00Z"}
        await gateway.answers(well | {"log": away | {"detail": "disk full"}, "nats": away})
        await gateway.answers(well | {"log": away | {"detail": "disk full"}})
        assert said == ["unhealthy    log: disk full; nats: unavailable"]
        await gateway.answers(well)
        assert said[1:] == ["healthy      again"]
        for parked in (2, 2, 1, 2, 0):
            await gateway.answers(well | {"status": "degraded", "parked": parked, "parked_more": 1})
        assert [line.split(";")[0] for line in said[2:]] == [
            f"degraded     {number} open parked messages" for number in (3, 3)
        ]
        await gateway.answers(well)
        del said[2:]
        for nonsense in (b"hi", b"[]", b"null", b"", {"log": {"since": 1}}, well | {"parked": "many"}):
            await gateway.answers(nonsense)
        assert said[2:] == ["unhealthy    gateway: it does not answer"]
        await gateway.answers(well)
        assert said[3:] == ["healthy      again"]
        server.close()
        await eventually(lambda: len(said) == 5, "a gateway that is away is told")
        assert said[4] == "unhealthy    gateway: it does not answer"
        assert not telling.done()
    finally:
        telling.cancel()
        server.close()
        await asyncio.gather(telling, return_exceptions=True)
