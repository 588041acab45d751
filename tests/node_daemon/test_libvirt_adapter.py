"""What is libvirt's alone: its connection, its machines, its deadlines."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from domain.contract import Power
from node_daemon.hypervisor.hypervisor import Boot, Hypervisor, Refused, Unreachable
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor, with_uefi
from node_daemon.hypervisor.machine import AARCH64, X86_64, Machine
from runtime.local.libvirtd import Libvirt
from runtime.tasks.tasks import end
from tests.node_daemon.beds import TEST
from tests.node_daemon.documents import new_vm, wanted
from tests.waiting import eventually


@dataclass(frozen=True)
class Somewhere:
    """A connection to a libvirt of this version, with or without firmware files."""

    version: int = 9_000_000
    firmware: str = ""

    def getDomainCapabilities(self, *_: object) -> str:
        return f"<domainCapabilities><os><enum name='firmware'>{self.firmware}</enum></os></domainCapabilities>"

    def getLibVersion(self) -> int:
        return self.version


@pytest.mark.parametrize(("machine", "package"), [(X86_64, "ovmf"), (AARCH64, "qemu-efi-aarch64")])
def test_without_uefi_it_says_which_package_helps(machine: Machine, package: str) -> None:
    with pytest.raises(Refused, match=package) as caught:
        with_uefi(Somewhere(), machine, "qemu")
    assert caught.value.invalid


@pytest.mark.parametrize(
    ("machine", "version", "panic"),
    [(X86_64, 9_000_000, "isa"), (AARCH64, 9_000_000, None), (AARCH64, 9_001_000, "pvpanic")],
)
def test_an_older_libvirt_gets_no_panic_device_that_it_does_not_know(
    machine: Machine, version: int, panic: str | None
) -> None:
    there = Somewhere(version, "<value>efi</value>")
    assert with_uefi(there, machine, "qemu") == replace(machine, panic=panic)


@asynccontextmanager
async def doorway(socket: Path) -> AsyncIterator[None]:
    """A way to libvirtd that is shut, for all who are inside as well, when left."""
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection("/run/libvirt/libvirt-sock")
        writers.extend((writer, back))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_unix_server(enter, socket)
    yield
    server.close()
    for writer in writers:
        writer.transport.abort()
    socket.unlink(missing_ok=True)


@pytest.mark.qemu
async def test_libvirtd_goes_and_comes_back(libvirt_qemu: Libvirt, tmp_path: Path) -> None:
    socket = tmp_path / "libvirt-sock"
    connection = libvirt.open("test+unix:///default")
    hypervisor = LibvirtHypervisor(f"test+unix:///default?socket={socket}", "default", "test", deadline=60)
    nudges: list[str | None] = []
    watch = asyncio.create_task(hypervisor.watch(nudges.append))
    await eventually(lambda: nudges.count(None) == 1, "told that it is away")
    boot = Boot(wanted(new_vm()), "/disk", "/base", "raw", "/console", "host-boot")
    async with doorway(socket):
        await eventually(lambda: nudges.count(None) == 2, "told that it is there")
        await hypervisor.start(boot)
        await eventually(lambda: boot.wanted.vm in nudges, "events arrive")
    with pytest.raises(Unreachable):
        await hypervisor.look(boot.wanted.vm)
    await eventually(lambda: nudges.count(None) == 3, "told that it is away again")
    nudges.clear()
    async with doorway(socket):
        assert (await hypervisor.look(boot.wanted.vm)).power is Power.ON
        await eventually(lambda: None in nudges, "told that it is there again")
        await hypervisor.destroy(boot.wanted.vm)
        await eventually(lambda: boot.wanted.vm in nudges, "events arrive again")
        await end([watch])
        hypervisor.close()
    connection.close()


async def test_every_call_has_a_deadline(tmp_path: Path) -> None:
    """A libvirtd that takes connections and never says a word. What has patience has a deadline of its own."""
    socket = tmp_path / "libvirt-sock"
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(lambda _, writer: writers.append(writer), socket)
    hypervisor = LibvirtHypervisor(f"test+unix:///default?socket={socket}", "default", "test", deadline=0.2)
    more: dict[str, tuple[Any, ...]] = {"suspend": (0.3,), "restore": ("host-boot", 0.3), "addresses": ("mac",)}
    named: dict[str, dict[str, Any]] = {"open_console": {"force": False}}
    for_all = {"domains", "capacity", "ensure_network", "usage"}
    calls = {name for name in vars(Hypervisor) if not name.startswith("_")} - {"watch"}
    assert calls > for_all

    async def ask(name: str) -> None:
        boot = Boot(wanted(new_vm()), "/disk", "/base", "raw", "/console", "host-boot")
        about = () if name in for_all else (boot if name == "start" else boot.wanted.vm, *more.get(name, ()))
        with pytest.raises(Unreachable, match="did not return"):
            await getattr(hypervisor, name)(*about, **named.get(name, {}))

    async with asyncio.timeout(20):
        await asyncio.gather(*map(ask, calls))
    server.close()
    for writer in writers:
        writer.transport.abort()
    hypervisor.close()


async def test_a_driver_without_agents_says_so_of_guests_that_run() -> None:
    connection = libvirt.open(TEST)
    hypervisor = LibvirtHypervisor(TEST, "default", "test", deadline=60)
    boot = Boot(wanted(new_vm()), "/disk", "/base", "raw", "/console", "host-boot")
    await hypervisor.start(boot)
    with pytest.raises(Refused, match="not supported") as caught:
        await hypervisor.guest(boot.wanted.vm)
    assert type(caught.value) is Refused
    await hypervisor.destroy(boot.wanted.vm)
    hypervisor.close()
    connection.close()


async def test_a_hung_call_holds_up_nobody_else() -> None:
    """Nor do many of those that may take long, such as suspending, or that guests have to answer."""
    hypervisor = LibvirtHypervisor("test:///default", "default", "test", deadline=0.2)
    connections = hypervisor._connections
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_: Any) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    with pytest.raises(Unreachable):
        await connections.call("one", hang)
    with pytest.raises(Unreachable):
        await connections.call("one", lambda _: None)
    assert await connections.call("another", lambda connection: connection.isAlive()) == 1
    long = [asyncio.create_task(connections.call(f"long {number}", hang, patience=60)) for number in range(40)]
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in long), "they have patience"
    assert await connections.call("another", lambda connection: connection.isAlive()) == 1
    guests = [
        asyncio.create_task(connections.call(f"{number} guest", hang, patience=60, of_guest=True))
        for number in range(40)
    ]
    await asyncio.sleep(0.1)
    assert await connections.call("another", lambda connection: connection.isAlive()) == 1
    assert await connections.call("1", lambda connection: connection.isAlive()) == 1
    release.set()
    await asyncio.gather(*long)
    await asyncio.gather(*guests)
    await eventually(lambda: "one" not in connections._hung, "the call's return")
    assert await connections.call("one", lambda connection: connection.isAlive()) == 1
    hypervisor.close()
