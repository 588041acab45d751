"""`make cluster`: run a cluster of three hosts on this machine until Ctrl-C, and remove it then.

With NEBULA_SIMULATE it has that many simulated nodes on a host of their own (10 by default, 0 for none).
"""

import asyncio
import contextlib
import os
import signal
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from cli.client.errors import CliError
from cli.local import home as homes
from cli.local.cluster.cluster import PLACES, SERVERS, Cluster, names
from cli.local.cluster.network import namespaces
from cli.local.progress import Progress, say
from cli.local.ready import wait_until_ready
from runtime import logs
from runtime.local.child import ServerError
from runtime.settings.common import default_home

READY = """\
ready        until Ctrl-C; try in another terminal:
               export NEBULA_HOME={home} NEBULA_URL={url}
               nebula status
             hosts (ip netns exec NAMESPACE …):
{hosts}"""


async def run(home: Path, simulate: int, port: int) -> None:
    """Run it until cancelled. Raises ServerError."""
    async with AsyncExitStack() as stack:
        stack.enter_context(homes.locked(home))
        say(f"Nebula on three hosts, in {home}")
        ready = Progress()
        network = await stack.enter_async_context(namespaces(names(simulated=simulate > 0)))
        cluster = Cluster(home, network, simulate)
        stack.push_async_callback(cluster.stop)
        began = datetime.now(UTC)
        await cluster.start(port)
        ready("servers", f"NATS on {', '.join(SERVERS)}; Postgres on a, its standby on b")
        await wait_until_ready(home, cluster.url, None, began, ready, simulate or None, node=simulate > 0)
        hosts = [f"               {host.address:<14} {host.namespace:<20} {_runs(host.name)}" for host in network.hosts]
        say(READY.format(home=home, url=cluster.url, hosts="\n".join(hosts)))
        await asyncio.Event().wait()


def _runs(name: str) -> str:
    roles = [role for role, places in PLACES.items() if name in places]
    return ", ".join((["nats"] if name in SERVERS else ["simulated nodes"]) + roles)


async def _until_stopped(home: Path, simulate: int, port: int) -> None:
    running = asyncio.create_task(run(home, simulate, port))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main() -> int:
    home = Path(os.environ.get("NEBULA_HOME") or default_home() / "cluster").absolute()
    logs.configure("cluster", "warning", "text")
    try:
        simulate, port = int(os.environ.get("NEBULA_SIMULATE", "10")), int(os.environ.get("NEBULA_HTTP_PORT", "8700"))
        asyncio.run(_until_stopped(home, simulate, port))
    except (ServerError, CliError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
