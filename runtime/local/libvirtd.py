"""Connects to libvirt, and starts its daemons if no service manager does.

libvirt belongs to the host: guests keep running when `nebula up` ends, and virtlogd writes their consoles. So the
daemons that we start detach from us and keep running. Stopping them does not stop guests either (QEMU does not depend
on libvirtd), but these guests cannot be managed until libvirtd runs again.
"""

import asyncio
import contextlib
import functools
import os
import platform
import shlex
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree as ET

import libvirt

from runtime.files.lock import turn
from runtime.files.private import PUBLIC
from runtime.local.child import ServerError, command_line, find_program

T = TypeVar("T")

LOCAL = "qemu:///system"
#: Seconds to wait for libvirtd after it was started. It first probes QEMU.
START_SECONDS = 60.0
#: Maximum seconds of one call to a running libvirtd.
CALL_SECONDS = 30.0
RUN = Path("/run")
#: The lock of the process that starts libvirt.
LOCK = RUN / "nebula-libvirt.lock"

#: libvirt's `default` network, for hosts whose packages do not define it. Its DHCP server knows guests by their MAC
#: address alone: a guest cannot take the lease of another one by its client identifier.
DEFAULT_NETWORK = """
<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
  <name>default</name>
  <bridge name='virbr0'/>
  <forward/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip>
  <dnsmasq:options><dnsmasq:option value='dhcp-ignore-clid'/></dnsmasq:options>
</network>
"""


#: libvirt's error codes for a server that does not answer.
AWAY = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_RPC)


class Silent(ServerError):
    """A libvirt that we cannot start does not answer."""


@dataclass(frozen=True)
class Libvirt:
    """A libvirt that answers, with an active network for guests."""

    uri: str
    #: type of domains: `kvm`, `qemu` (TCG, slower) or `test` (libvirt's test driver)
    virt_type: str
    network: str
    #: the host's own address on `network`, as guests see it
    host_address: str
    #: process ids of daemons that this call of `ensure_libvirt` has started; they keep running unless `stop` is called
    started_pids: tuple[int, ...]

    async def stop(self) -> None:
        """End the daemons that were started, last first, for tests. Guests keep running."""
        for pid in reversed(self.started_pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + CALL_SECONDS
            while command_line(pid) and time.monotonic() < deadline:  # noqa: ASYNC110  (not our child)
                await asyncio.sleep(0.05)


async def ensure_libvirt(uri: str = LOCAL, *, network: str = "default") -> Libvirt:
    """Connect to `uri`, and activate `network`. If this host's libvirt does not answer, its daemons are started.

    The network `default` is defined if it is missing; any other network must exist. Raises ServerError.
    """
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; libvirt would also print them
    async with _alone():
        return await _ensured(uri, network)


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    """Hold a lock of this host if we are root, so that two processes do not both start libvirt."""
    if os.geteuid() != 0:
        yield
        return
    async with turn(LOCK):
        yield


async def _ensured(uri: str, network: str) -> Libvirt:
    started: tuple[int, ...] = ()
    try:
        connection = await _call(functools.partial(libvirt.open, uri))
    except libvirt.libvirtError as error:
        if uri != LOCAL:
            kind = Silent if error.get_error_code() in AWAY else ServerError
            raise kind(f"libvirt does not answer at {uri}: {error}") from error
        started = await _start_daemons()
        connection = await _open_local()
    try:
        if uri == LOCAL:
            started += await _log_daemon()
        virt_type = local_virt_type() if uri == LOCAL else await _offered(connection)
        address = await _call(functools.partial(_activate, connection, network))
    except libvirt.libvirtError as error:
        raise ServerError(f"libvirt at {uri} cannot run network {network}: {error}") from error
    finally:
        await _call(connection.close)
    return Libvirt(uri, virt_type, network, address, started)


def kvm_trouble() -> str | None:
    """The reason why KVM is not usable on this host; None if it is.

    On x86 `/dev/kvm` alone is not enough: without the CPU flag vmx or svm, guests hang at boot.
    """
    flags = Path("/proc/cpuinfo").read_text().split()
    if not on_arm() and "vmx" not in flags and "svm" not in flags:
        return "the CPU shows neither vmx nor svm"
    if not Path("/dev/kvm").exists():
        return "there is no /dev/kvm"
    return None


def on_arm() -> bool:
    """Whether this host's CPUs are aarch64."""
    return platform.machine().lower() in ("aarch64", "arm64")


def local_virt_type() -> str:
    return "kvm" if kvm_trouble() is None else "qemu"


async def _call(blocking: Callable[[], T]) -> T:
    """Run a libvirt call on a thread. Raises ServerError if it hangs."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(blocking), CALL_SECONDS)
    except TimeoutError as error:
        raise ServerError(f"libvirt does not return from a call within {CALL_SECONDS:.0f} s") from error


async def _open_local() -> libvirt.virConnect:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return await _call(functools.partial(libvirt.open, LOCAL))
        except libvirt.libvirtError as error:
            if time.monotonic() > deadline:
                raise ServerError(f"libvirtd was started but does not answer at {LOCAL}: {error}") from error
        await asyncio.sleep(0.1)


async def _offered(connection: libvirt.virConnect) -> str:
    """The best domain type of another host for its own architecture. Raises ServerError."""
    capabilities = ET.fromstring(await _call(connection.getCapabilities))  # noqa: S314  (libvirt wrote it)
    types = [domain.get("type", "") for domain in capabilities.iterfind("guest/arch/domain")]
    if not types:
        raise ServerError(f"libvirt at {connection.getURI()} cannot run guests: install QEMU on that host")
    return "kvm" if "kvm" in types else types[0]


def _activate(connection: libvirt.virConnect, name: str) -> str:
    """Activate the network now and at each start of libvirt. Returns the host's address on it. Raises ServerError."""
    try:
        network = connection.networkLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
            raise
        if name != "default":
            raise ServerError(f"libvirt has no network {name}: define it, or set NEBULA_NETWORK=default") from error
        network = connection.networkDefineXML(DEFAULT_NETWORK)
    if not network.isActive():
        network.create()
    if not network.autostart():
        network.setAutostart(1)
    for ip in ET.fromstring(network.XMLDesc()).iterfind("ip"):  # noqa: S314  (libvirt wrote it)
        address = ip.get("address")
        if address is not None and ip.get("family", "ipv4") == "ipv4":
            return address
    raise ServerError(f"the host has no IPv4 address on libvirt's network {name}: add one to the network")


async def _start_daemons() -> tuple[int, ...]:
    """Start libvirt's daemons, with systemd if it runs. Returns the process ids of those started without it."""
    if os.geteuid() != 0:
        raise ServerError(
            f"libvirt does not answer at {LOCAL}: start it (`sudo systemctl start libvirtd`) and join the"
            " group libvirt, run as root, or set NEBULA_LIBVIRT_URI"
        )
    for program, package in (
        ("libvirtd", "libvirt-daemon-system"),
        ("virtlogd", "libvirt-daemon-system"),
        ("qemu-system-aarch64", "qemu-system-arm") if on_arm() else ("qemu-system-x86_64", "qemu-system-x86"),
        ("dnsmasq", "dnsmasq-base"),
        ("iptables", "iptables"),
        ("nft", "nftables"),
    ):
        if find_program(program) is None:
            raise ServerError(f"{program} is missing: run `make setup`, or apt-get install {package}")
    if Path("/run/systemd/system").is_dir():
        await _run("systemctl", "start", "libvirtd")
        return ()
    started = await _daemon("virtlogd")
    hide_kvm = kvm_trouble() is not None and Path("/dev/kvm").exists()
    return started + await _daemon("libvirtd", hide_kvm=hide_kvm)


async def _log_daemon() -> tuple[int, ...]:
    """Start virtlogd if libvirtd runs without it, for example after a kill: no guest could start without it."""
    if os.geteuid() != 0 or Path("/run/systemd/system").is_dir() or find_program("virtlogd") is None:
        return ()
    with socket.socket(socket.AF_UNIX) as logs:
        try:
            logs.connect(str(RUN / "libvirt" / "virtlogd-sock"))
        except OSError:
            return await _daemon("virtlogd")
    return ()


async def _daemon(name: str, *, hide_kvm: bool = False) -> tuple[int, ...]:
    """Start a libvirt daemon, which detaches itself, unless it runs already. Returns its process id, if it was started.

    `hide_kvm`: start it in a mount namespace in which /dev/kvm cannot be opened. If libvirt can open a /dev/kvm that
    does not work, it probes QEMU again at each call, which takes from 2 s to a minute.
    """
    pid_file = RUN / f"{name}.pid"
    if _pid(pid_file, name) is not None:
        return ()
    command = [str(find_program(name)), "--daemon", "--pid-file", str(pid_file)]
    if hide_kvm:
        closed = RUN / "nebula-closed-kvm"
        if not closed.exists():  # a device, not a file, because libvirt copies it for each guest
            os.mknod(closed, stat.S_IFCHR, os.makedev(1, 3))
        script = f"mount --bind {closed} /dev/kvm && exec {shlex.join(command)}"
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script]
    await _run(*command)
    pid = _pid(pid_file, name)
    if pid is None:
        raise ServerError(f"{name} ended immediately after its start: see /var/log/libvirt")
    return (pid,)


def _pid(pid_file: Path, name: str) -> int | None:
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return None
    return pid if command_line(pid)[0:1] and command_line(pid)[0].endswith(name) else None


async def _run(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        umask=PUBLIC,
    )
    _, errors = await process.communicate()
    if process.returncode != 0:
        last = " ".join(errors.decode(errors="replace").split())[-300:]
        raise ServerError(f"{shlex.join(argv)} failed: {last or f'exit status {process.returncode}'}")


def described(libvirt: Libvirt) -> str:
    """One line for people."""
    why = f": {kvm_trouble()}, so guests are slow" if libvirt.virt_type == "qemu" and libvirt.uri == LOCAL else ""
    return f"{libvirt.uri}, network {libvirt.network} ({libvirt.host_address}), type {libvirt.virt_type}{why}"
