"""In the end of a run: wait until all is quiet, then compare all that there is."""

import asyncio
import os
import ssl
import sys
import time
from collections.abc import Callable

import httpx

from tests.chaos.feeds import Feed
from tests.cluster import checks
from tests.cluster.bed import Bed
from tests.cluster.figures import Figures
from tests.cluster.tenants import Tally
from tests.e2e.platform import TERMINAL
from tests.soak.feed import Reader

#: Seconds until everything has to be as it should after the last fault.
QUIET = 180.0
Say = Callable[[str], None]


def client(made: Bed) -> httpx.AsyncClient:
    token = (made.home / "admin.token").read_text().strip()
    trust = ssl.create_default_context(cafile=str(made.cluster.ca))
    headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
    return httpx.AsyncClient(base_url=made.cluster.url, headers=headers, timeout=15, verify=trust, trust_env=False)


async def compare(
    made: Bed, nodes: int, tally: Tally, feeds: list[Feed], reader: Reader, figures: Figures, say: Say
) -> None:
    """Wait until all is quiet, then look at everything."""
    began = time.monotonic()
    say(f"{len(tally.operations)} commands accepted; waiting until all operations have ended")
    async with client(made) as http:
        open_ = list(tally.operations)
        while open_ and time.monotonic() < began + QUIET:
            await asyncio.sleep(1)
            statuses = await operations(http)
            open_ = [each for each in open_ if statuses.get(each) not in TERMINAL]
        figures.violations += [f"operation {each} has not ended: {statuses.get(each)}" for each in open_]
    figures.quiet_after = time.monotonic() - began
    found = await checks.logs(made)
    events = next(iter(found.values()))
    figures.events = len(events)
    figures.violations += checks.same_everywhere(found)
    figures.violations += checks.kept(events, tally.operations)
    figures.violations += checks.within_capacity(events)
    figures.violations += checks.on_one_node(made, nodes)
    positions = [one.position for one in events]
    for feed in feeds:
        await feed.reach(positions[-1], 30)
        seen = [entry.position for entry in feed.saw if entry.position <= positions[-1]]
        if seen != positions:
            figures.violations.append(f"feed {feed.name} has {len(seen)} events of {len(positions)}")
    figures.violations += reader.broken
    figures.violations += await verified(made)


async def operations(http: httpx.AsyncClient) -> dict[str, str]:
    """The status of each operation; what was read before a page was not answered."""
    found: dict[str, str] = {}
    token = ""
    while True:
        try:
            answer = await http.get(f"/v1/operations?limit=500{token}")
        except httpx.TransportError:
            return found
        if not answer.is_success:
            return found
        page = answer.json()
        found |= {each["id"]: each["status"] for each in page["items"]}
        if page["next_page_token"] is None:
            return found
        token = f"&page_token={page['next_page_token']}"


async def verified(made: Bed) -> list[str]:
    """What `nebula verify` says of the log and of the read models."""
    wrong = []
    host = made.cluster.network.host("b")
    for what, role in (("log", "handlers"), ("views", "projections")):
        environment = made.cluster.environment(role, host) | {"NEBULA_LOG_LEVEL": "warning"}
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", str(host.namespace), sys.executable, "-m", "cli.main", "verify", what),
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        if process.returncode:
            wrong.append(f"nebula verify {what}: {out.decode()[-600:]}")
    return wrong
