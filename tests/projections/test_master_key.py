"""Projections that may only read the folder of the master key wait until handlers have made it."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from eventstore.vault.vault import Vault
from projections import main
from projections.guest_answers import GuestAnswers
from runtime.local.servers import NatsServer
from runtime.settings import ProjectionsSettings
from runtime.tasks import patience
from runtime.tasks.backoff import Backoff
from tests.event_keys import put_keys


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
async def test_they_wait(number: int, nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    made = Vault.of

    def of(*given: Any, **options: Any) -> Any:
        tries.append(number)
        if len(tries) < 3:
            raise OSError(number, os.strerror(number))
        return made(*given, **options)

    monkeypatch.setattr(Vault, "of", of)
    monkeypatch.setattr(patience, "RETRY", Backoff(first=0.0, last=0.0))
    serving = asyncio.Event()
    put_keys(tmp_path)

    async def answer(*_: object) -> None:
        serving.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(GuestAnswers, "run", answer)
    settings = ProjectionsSettings(
        home=tmp_path, nats_url=nats_server.url, postgres_dsn="postgresql://nobody@127.0.0.1:1/none"
    )
    keeping = asyncio.create_task(main.keep(settings))
    try:
        async with asyncio.timeout(60):
            await serving.wait()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert tries == [number] * 3
