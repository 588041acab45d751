"""The hosts of a cluster: network namespaces on a bridge, or addresses of 127.0.0.0/8 of this machine.

The bridge is in a namespace too. This machine gets one link to it, with the last address of the network.
"""

import asyncio
import contextlib
import os
import random
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.local.child import ServerError

#: Networks from which one is chosen that this machine does not use: 10.<first>.<0 to 255>.0/24.
FIRST = 213
_NAMESPACE = re.compile(r"nebula-c([0-9]+)-[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Host:
    """`namespace`: None for a host that is only an address of this machine."""

    name: str
    address: str
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """`here`: the address of this machine in it. `hub`: the namespace of the bridge; empty without namespaces."""

    hosts: Sequence[Host]
    here: str
    hub: str = ""

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)


def addresses(names: Sequence[str]) -> Network:
    """Hosts that are addresses of this machine. No address is returned twice to the same process."""
    number = next(_numbers)
    subnet = f"127.{64 + os.getpid() % 128}.{number % 256}"
    hosts = [Host(name, f"{subnet}.{last}") for last, name in enumerate(names, start=1)]
    return Network(hosts, f"{subnet}.254")


_numbers = iter(random.SystemRandom().sample(range(256), 256))


@asynccontextmanager
async def namespaces(names: Sequence[str]) -> AsyncIterator[Network]:
    """Hosts in network namespaces, which are removed in the end. Raises ServerError if they cannot be made."""
    if os.geteuid() != 0:
        raise ServerError("only root can make network namespaces: run it as root")
    await remove_leftovers()
    pid = os.getpid()
    subnet, hub, link = f"10.{FIRST}.{await _free_network()}", f"nebula-c{pid}-hub", f"nbc{pid}"
    found = Network(
        [Host(name, f"{subnet}.{last}", f"nebula-c{pid}-{name}") for last, name in enumerate(names, start=1)],
        f"{subnet}.254",
        hub,
    )
    try:
        await _ip("netns", "add", hub)
        await _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        await _ip("-n", hub, "link", "set", "bridge", "up")
        await _ip("link", "add", link, "type", "veth", "peer", "name", "here", "netns", hub)
        await _plug(hub, "here")
        await _ip("address", "add", f"{found.here}/24", "dev", link)
        await _ip("link", "set", link, "up")
        for host in found.hosts:
            inside = str(host.namespace)
            await _ip("netns", "add", inside)
            await _ip(
                "-n", hub, "link", "add", f"to-{host.name}", "type", "veth", "peer", "name", "eth0", "netns", inside
            )
            await _plug(hub, f"to-{host.name}")
            await _ip("-n", inside, "address", "add", f"{host.address}/24", "dev", "eth0")
            await _ip("-n", inside, "link", "set", "eth0", "up")
            await _ip("-n", inside, "link", "set", "lo", "up")
        yield found
    finally:
        for name in [hub, *(str(host.namespace) for host in found.hosts)]:
            with contextlib.suppress(ServerError):
                await _ip("netns", "delete", name)  # and the links with it


async def remove_leftovers() -> None:
    """Remove the namespaces of processes that were killed."""
    listed = await _ip("netns", "list")
    for line in listed.splitlines():
        name = line.split()[0]
        of = _NAMESPACE.fullmatch(name)
        if of is not None and not Path("/proc", of[1]).exists():
            with contextlib.suppress(ServerError):
                await _ip("netns", "delete", name)


async def _free_network() -> int:
    routes = await _ip("-4", "route", "show", "table", "all")
    used = {int(found) for found in re.findall(rf"10\.{FIRST}\.([0-9]+)\.", routes)}
    free = sorted(set(range(256)) - used)
    if not free:
        raise ServerError(f"all networks of 10.{FIRST}.0.0/16 are in use on this machine")
    return random.SystemRandom().choice(free)


async def _plug(hub: str, port: str) -> None:
    await _ip("-n", hub, "link", "set", port, "master", "bridge")
    await _ip("-n", hub, "link", "set", port, "up")


async def _ip(*words: str) -> str:
    return await command("ip", *words)


async def command(*words: str) -> str:
    """Run a short command, and return its output. Raises ServerError."""
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, wrong = await process.communicate()
    if process.returncode != 0:
        raise ServerError(f"{' '.join(words)}: {wrong.decode(errors='replace').strip()}")
    return out.decode(errors="replace")
