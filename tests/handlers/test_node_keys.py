"""Handlers without the keys that signed the documents of nodes do not start: they would sign all of them again."""

import asyncio
import os
import sys
from pathlib import Path

from node_daemon.reconcile.wanted import WantedDocuments
from runtime.local.child import spawn
from runtime.node_keys import derived, finish, node_keys, rotate
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


async def test_keys_are_replaced_while_each_host_follows(tmp_path: Path) -> None:
    """Handlers sign with both keys until all hosts have the new one. Then the earlier key opens nothing."""
    async with write_side(tmp_path, NEBULA_NODE_TIMEOUT="60") as side:
        await side.start()
        await side.cloud()
        await side.node("n1")
        await side.heartbeat("n1")
        path = side.home / "node.keys"
        old = node_keys(path).root
        first = await side.create()
        new = rotate(path).root
        hosts = [WantedDocuments(side.nc, "n1", lambda _: None, derived(root, "n1")) for root in (old, new)]
        tasks = [asyncio.create_task(host.follow()) for host in hosts]
        try:
            await eventually(lambda: hosts[0].get(first), "the earlier key")
            await eventually(lambda: hosts[1].malformed, "not yet signed with the new key")
            await side.stop_all()
            await side.start()
            await eventually(lambda: hosts[1].get(first), "a document of before is signed with both")
            second = await side.create()
            for host in hosts:
                await eventually(lambda h=host: h.get(second), "both keys")  # type: ignore[misc]
                assert not host.malformed
            await side.stop_all()
            finish(path)
            await side.start()
            await eventually(lambda: len(hosts[0].malformed) == 2, "all documents are signed with the new key only")
            third = await side.create()
            await eventually(lambda: hosts[1].get(third), "the new key")
            await eventually(lambda: len(hosts[0].malformed) == 3, "the earlier key opens nothing")
            assert hosts[0].get(third) is None and not hosts[1].malformed
        finally:
            for task in tasks:
                task.cancel()
