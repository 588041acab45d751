"""A full disk under a bus with accounts: there is no monitoring port, and the server is started again all the same."""

import asyncio
import contextlib
from functools import partial
from pathlib import Path

from cli.local.accounts import Accounts
from cli.local.servers import kept
from runtime import subjects
from runtime.bus import bus, streams
from runtime.bus.accounts.authority import Authority
from runtime.local.child import free_port
from runtime.local.full_disk import FullDisk
from runtime.local.servers import start_nats
from runtime.settings import Common
from tests.small_disk import fill, mounted, needs_root
from tests.waiting import eventually

pytestmark = needs_root


async def test_a_server_that_cannot_store_is_started_again(open_folder: Path) -> None:
    with mounted(open_folder / "nats", 64):
        accounts, lines = Accounts(Authority(open_folder), None), list[str]()
        start = partial(start_nats, open_folder, port=free_port(), accounts=accounts.authority)
        async with kept("nats", start, FullDisk(lines.append, accounts.write_error).watch) as server:
            settings = Common(home=open_folder, nats_url=server.url)
            async with accounts.serving(settings, None):
                mine = settings.model_copy(update={"nats_creds": accounts.file("handlers")})
                nc = await bus.connect(mine, "tests")
                await streams.ensure_all(nc.jetstream(), 1)
                ballast = open_folder / "nats" / "ballast"
                assert await accounts.write_error(server) is None

                async def stores() -> bool:
                    with contextlib.suppress(TimeoutError):
                        answer = await nc.request(subjects.event("p", "vm", "large"), bytes(10_000), timeout=0.5)
                        return b'"seq"' in answer.data and b"error" not in answer.data
                    return False

                while not await accounts.write_error(server):
                    fill(ballast)
                    await stores()
                await eventually(lambda: len(lines) >= 2, "it is seen")
                assert "no space left on device" in lines[0]
                first = server.pid
                ballast.unlink()
                await eventually(lambda: len(lines) >= 3, "the server is started again", 25)
                await eventually(stores, "it stores again")
                assert int((open_folder / "nats.pid").read_text()) != first
                await asyncio.wait_for(nc.close(), 10)
