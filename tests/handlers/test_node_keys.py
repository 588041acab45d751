"""Handlers without the keys that signed the documents of nodes do not start: they would sign all of them again."""

import asyncio
import os
import sys
from pathlib import Path

from runtime.local.child import spawn
from tests.handlers.platform import WriteSide, write_side
from tests.waiting import eventually


async def ended(side: WriteSide) -> str:
    """What handlers print that end at once."""
    env = {**os.environ, "NEBULA_HOME": str(side.home), "NEBULA_NATS_URL": side.nats.url}
    log = side.home / "handlers.log"
    child = await spawn("handlers", [sys.executable, "-m", "cli.local.role", "handlers"], log, env=env)
    try:
        async with asyncio.timeout(60):
            assert await child.process.wait() == 2, log.read_text()
    finally:
        await child.kill()
    return log.read_text()


async def test_they_need_the_keys_that_signed(tmp_path: Path) -> None:
    async with write_side(tmp_path, NEBULA_NODE_TIMEOUT="60") as side:
        await side.start()
        await side.cloud()
        await side.node("n1")
        await side.heartbeat("n1")
        await refused_without(side)


async def refused_without(side: WriteSide) -> None:
    keys = side.home / "node.keys"
    vm = await side.create()
    await eventually(lambda: side.wanted(vm), "wanted document")
    await side.stop_all()
    saved = keys.read_bytes()
    keys.unlink()
    assert f"{keys} is missing" in await ended(side)
    assert not keys.exists()
    keys.write_text("ab" * 32)
    keys.chmod(0o600)
    assert f"{keys} has another key" in await ended(side)
    keys.write_bytes(saved)
    await side.start()
