"""What a delivery leaves out is read from the log."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from eventstore.log.envelope import Recorded
from eventstore.log.follow import follow
from projections import behind, database
from runtime.local.servers import Postgres
from tests.projections.cloud import cloud


async def test_messages_that_were_not_delivered_are_applied(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out: list[int] = []

    async def leaky(*args: Any, **more: Any) -> AsyncGenerator[list[Recorded], None]:
        async with contextlib.aclosing(follow(*args, **more)) as batches:
            async for batch in batches:
                left_out.extend(each.position for each in batch[:-1])
                yield batch[-1:]

    async with cloud(tmp_path, postgres) as made:
        await made.furnish()
        await made.running()
        monkeypatch.setattr(behind, "follow", leaky)
        task = asyncio.create_task(made.runner().run())
        end = await made.caught_up()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert left_out
        async with await database.connect(made.dsn, "test", "nebula") as conn:
            cursor = await conn.execute("SELECT count(*) AS n FROM events")
            assert await cursor.fetchone() == {"n": end}
