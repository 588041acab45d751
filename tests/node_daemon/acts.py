"""Every act of a daemon that leaves a trace, one by one; and stops on the way, exactly before or after one of them.

`python -m tests.node_daemon.acts ORDERS` is a daemon in a process of its own that notes its acts and dies, by SIGKILL,
once every VM that is to be stopped somewhere has got there. So one death is, for each VM, a death at another act.
"""

import asyncio
import functools
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from pydantic import TypeAdapter
from structlog.contextvars import get_contextvars

from node_daemon.hypervisor.host_names import HostNames
from node_daemon.hypervisor.hypervisor import Boot, Hypervisor
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.main import serve
from node_daemon.reconcile import start_slots
from node_daemon.reconcile.host import virt_type
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from node_daemon.storage.disks import Disks
from runtime import logs
from runtime.files.files import put_in_place
from runtime.images.qemu_img import qemu_img
from runtime.settings import NodeSettings, read

T = TypeVar("T")

#: What a hypervisor does, as against what it is asked.
ON_DOMAINS = (
    "start",
    "persist",
    "shutdown",
    "pause",
    "unpause",
    "suspend",
    "restore",
    "discard",
    "destroy",
    "undefine",
)
#: The node of the simulated host.
SIMULATED = "acts"


@dataclass(frozen=True)
class Stop:
    """Before or after the `number`-th act, from 1 on."""

    number: int
    before: bool


@dataclass(frozen=True)
class Orders:
    """Where to note the acts; where to stop which VM; the host_store of a simulated host, where it is one."""

    notes: Path
    stops: dict[str, Stop] = field(default_factory=dict)
    host_store: Path | None = None


ORDERS = TypeAdapter(Orders)


class Acts:
    """Counts the acts on each VM. An act that is repeated at once, such as asking a guest to shut down, counts once."""

    def __init__(self, there: Callable[[], object], notes: Path | None = None) -> None:
        self._there = there
        self._notes = notes
        self._loop = asyncio.get_running_loop()
        #: lets all go on that were stopped
        self.go_on = asyncio.Event()
        self.stop_at({})

    def stop_at(self, stops: Mapping[str, Stop]) -> None:
        """Count from here on, and call `there` when each of these VMs has got to its stop."""
        self._stops = stops
        self.left = set(stops)
        self._begun: dict[str, list[str]] = {}

    async def act(self, vm: str, name: str, work: Callable[[], Awaitable[T]]) -> T:
        stop = self._begins(vm, name)
        if stop is not None and stop.before:
            await self._stand(vm)
        result = await work()
        self._note(vm, name, "done")
        if stop is not None and not stop.before:
            await self._stand(vm)
        return result

    def blocking(self, name: str, real: Callable[..., T]) -> Callable[..., T]:
        """`real`, which is called on a thread of a VM's lane, as an act."""

        @functools.wraps(real)
        def act(*arguments: Any, **options: Any) -> T:
            vm = lane()
            stop = self._begins(vm, name)
            if stop is not None and stop.before:
                asyncio.run_coroutine_threadsafe(self._stand(vm), self._loop).result()
            result = real(*arguments, **options)
            self._note(vm, name, "done")
            if stop is not None and not stop.before:
                asyncio.run_coroutine_threadsafe(self._stand(vm), self._loop).result()
            return result

        return act

    def _begins(self, vm: str, name: str) -> Stop | None:
        """The stop at this act of the VM, if it has one here."""
        begun = self._begun.setdefault(vm, [])
        if begun and begun[-1] == name:
            return None
        begun.append(name)
        self._note(vm, name, "begins")
        stop = self._stops.get(vm)
        return stop if stop is not None and stop.number == len(begun) else None

    def _note(self, vm: str, name: str, what: str) -> None:
        if self._notes is not None:
            with self._notes.open("a") as file:
                file.write(f"{vm},{name},{what}\n")

    async def _stand(self, vm: str) -> None:
        self.left.discard(vm)
        if not self.left:
            self._there()
        await self.go_on.wait()


def lane() -> str:
    """The VM whose lane this is."""
    return str(get_contextvars()["vm"])


class Acting:
    """A hypervisor whose doings are acts."""

    def __init__(self, real: Hypervisor, acts: Acts) -> None:
        self._real = real
        self._acts = acts

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in ON_DOMAINS:
            return real

        async def act(about: Any, *arguments: Any, **options: Any) -> Any:
            vm = about.wanted.vm if isinstance(about, Boot) else about
            return await self._acts.act(vm, name, lambda: real(about, *arguments, **options))

        return act


class WithConsoles:
    """A simulated hypervisor that makes the logs of consoles, as virtlogd does."""

    def __init__(self, real: Hypervisor) -> None:
        self._real = real

    async def start(self, boot: Boot) -> Any:
        Path(boot.console).touch()
        return await self._real.start(boot)

    async def qemu_group(self) -> None:
        """Nobody runs QEMU here."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def on_files(acts: Acts) -> None:
    """Make acts of what this process does to files from now on."""

    async def noted(*arguments: str, **more: Any) -> bytes:
        if arguments[0] == "info":
            return await qemu_img(*arguments, **more)
        return await acts.act(lane(), f"{arguments[0]} disk", lambda: qemu_img(*arguments, **more))

    for name, act in {
        "node_daemon.storage.disks.qemu_img": noted,
        "node_daemon.storage.disks.put_in_place": acts.blocking("disk in place", put_in_place),
        "node_daemon.storage.images.put_in_place": acts.blocking("image in place", put_in_place),
        "node_daemon.storage.seed_disk.put_in_place": acts.blocking("seed in place", put_in_place),
        "shutil.rmtree": acts.blocking("remove folder", shutil.rmtree),
        "node_daemon.storage.disks.Disks.remove_earlier": acts.blocking("remove earlier disks", Disks.remove_earlier),
        "node_daemon.storage.disks.Disks.remove": acts.blocking("remove files", Disks.remove),
    }.items():
        patch(name, act).start()


async def run(settings: NodeSettings, orders: Orders) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(256))  # those that stand take one each
    start_slots.LONGEST = 0.0  # and keep nobody from starting
    hypervisor: Any
    if orders.host_store is not None:
        hypervisor = WithConsoles(Simulator(SimulatedHost(SIMULATED, HostStore(orders.host_store))))
    else:
        uri = settings.libvirt_uri
        names = HostNames(settings.data_dir.resolve())
        hypervisor = LibvirtHypervisor(uri, settings.network, virt_type(uri), settings.libvirt_deadline, names=names)
    acts = Acts(lambda: os.kill(os.getpid(), signal.SIGKILL), orders.notes)
    acts.stop_at(orders.stops)
    on_files(acts)
    await serve(settings, Acting(hypervisor, acts))  # type: ignore[arg-type]


if __name__ == "__main__":
    logs.configure("node", "warning", "text")
    asyncio.run(run(read(NodeSettings), ORDERS.validate_json(Path(sys.argv[1]).read_bytes())))
