"""A gateway whose packets to and from the bus are dropped: it knows nobody within seconds, and recovers by itself."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runtime.local.servers import Postgres
from tests.gateway.platform import platform
from tests.gateway.test_tokens import a_site, feed_of
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops packets")


@contextmanager
def dropped(port: int) -> Iterator[None]:
    """Drop all packets of loopback to and from this TCP port."""
    rules = [("OUTPUT", "-o", "lo", "-p", "tcp", side, str(port), "-j", "DROP") for side in ("--dport", "--sport")]
    made = []
    try:
        for rule in rules:
            subprocess.run(["iptables", "--wait", "-I", *rule], check=True)
            made.append(rule)
        yield
    finally:
        for rule in made:
            subprocess.run(["iptables", "--wait", "-D", *rule], check=True)


async def test_a_gateway_that_is_cut_off_knows_nobody_and_recovers(tmp_path: Path, postgres: Postgres) -> None:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(platform(tmp_path, postgres))
        folder = tmp_path / "site"
        folder.mkdir()
        site = await stack.enter_async_context(a_site(api, folder, identity_seconds=2))
        token, opened = await site.token(await site.user("auditor")), asyncio.Event()
        feed = asyncio.create_task(feed_of(site, token, opened))
        await opened.wait()
        with dropped(urlsplit(api.side.nats.url).port or 0):

            async def refused() -> bool:
                answer = await site.get(token)
                return (answer.status_code, answer.json().get("code")) == (503, "identity_unavailable")

            await eventually(refused, "its token is not accepted any more")
            assert ": ended: identity_unavailable" in await feed

        async def accepted() -> bool:
            return (await site.get(token)).status_code == 200

        await eventually(accepted, "it is accepted again")
