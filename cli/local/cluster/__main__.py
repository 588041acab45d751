"""`make cluster`: run a cluster of three hosts on this machine until Ctrl-C, and remove it then.

With NEBULA_SIMULATE it has that many simulated nodes on a host of their own (10 by default, 0 for none). With `--node`
this machine is a node of it, whose guests run in this machine's libvirt.
"""

import asyncio
import contextlib
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cli.client.errors import CliError
from cli.local import home as homes
from cli.local.cluster import here
from cli.local.cluster.cluster import PLACES, SERVERS, Cluster, names
from cli.local.cluster.network import namespaces
from cli.local.progress import Progress, say
from cli.local.ready import client, wait_until_ready
from runtime import logs
from runtime.local.child import ServerError
from runtime.local.libvirtd import ensure_libvirt
from runtime.settings import NodeSettings
from runtime.settings.common import default_home

READY = """\
ready        until Ctrl-C; try in another terminal:
               export NEBULA_HOME={home} NEBULA_URL={url}
               nebula status
             hosts (ip netns exec NAMESPACE …):
{hosts}"""


@dataclass(frozen=True)
class Plan:
    """`node`: whether this machine is a node. Ports: of the API, and of what tells guests their data; 0: any."""

    home: Path
    simulate: int
    port: int
    seed_port: int
    node: bool


async def run(plan: Plan) -> None:
    """Run it until cancelled. Raises ServerError, CliError."""
    home, simulate = plan.home, plan.simulate
    async with AsyncExitStack() as stack:
        stack.enter_context(homes.locked(home))
        say(f"Nebula on three hosts, in {home}")
        ready = Progress()
        network = await stack.enter_async_context(namespaces(names(simulated=simulate > 0)))
        more = {"IMAGE_PATHS": os.environ["NEBULA_IMAGE_PATHS"]} if "NEBULA_IMAGE_PATHS" in os.environ else {}
        cluster = Cluster(home, network, simulate, more)
        stack.push_async_callback(cluster.stop)
        began = datetime.now(UTC)
        await cluster.start(plan.port)
        ready("servers", f"NATS on {', '.join(SERVERS)}; Postgres on a, its standby on b")
        await wait_until_ready(home, cluster.url, None, began, ready, simulate or None, node=simulate > 0)
        if plan.node:
            settings = NodeSettings()
            libvirt = await ensure_libvirt(settings.libvirt_uri, network=settings.network)
            await asyncio.to_thread(here.join, home / "here", client(home, cluster.url))
            for role in here.roles(cluster, home / "here", libvirt, plan.seed_port):
                cluster.roles.add(role)
            await wait_until_ready(home, cluster.url, None, began, ready, None, node=True)
        hosts = [f"               {host.address:<14} {host.namespace:<20} {_runs(host.name)}" for host in network.hosts]
        say(READY.format(home=home, url=cluster.url, hosts="\n".join(hosts)))
        await asyncio.Event().wait()


def _runs(name: str) -> str:
    roles = [role for role, places in PLACES.items() if name in places]
    return ", ".join((["nats"] if name in SERVERS else ["simulated nodes"]) + roles)


async def _until_stopped(plan: Plan) -> None:
    running = asyncio.create_task(run(plan))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main() -> int:
    home = Path(os.environ.get("NEBULA_HOME") or default_home() / "cluster").absolute()
    logs.configure("cluster", "warning", "text")
    try:
        simulate, port, seed_port = (
            int(os.environ.get(f"NEBULA_{name}", default))
            for name, default in (("SIMULATE", "10"), ("HTTP_PORT", "8700"), ("SEED_PORT", "8775"))
        )
        asyncio.run(_until_stopped(Plan(home, simulate, port, seed_port, "--node" in sys.argv[1:])))
    except (ServerError, CliError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
