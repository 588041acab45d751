"""A libvirtd of the tests' own, with real QEMU: it can be killed without anybody else's noticing.

It works in mount and network namespaces of its own, in which its folders are others than those of the host's libvirtd.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import libvirt
import pytest

from runtime.local.child import command_line
from runtime.local.libvirtd import RUN, ensure_libvirt, kvm_trouble
from tests.waiting import eventually

#: What libvirtd takes for its own, by the names of our folders for it.
FOLDERS = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}


class OwnLibvirt:
    def __init__(self, home: Path, holder: int) -> None:
        self._home = home
        self.uri = f"qemu+unix:///system?socket={home}/run/libvirt-sock"
        self.holder = holder
        #: runs a command in its network
        self.inside = ("nsenter", "--target", str(holder), "--net")

    async def start(self, daemon: str = "libvirtd") -> None:
        process = await asyncio.create_subprocess_exec(
            *self.inside, "--mount", daemon, "--daemon", "--pid-file", str(self._home / f"{daemon}.pid")
        )
        assert await process.wait() == 0

    async def kill(self, number: int = signal.SIGKILL, daemon: str = "libvirtd") -> None:
        pid = int((self._home / f"{daemon}.pid").read_text())
        os.kill(pid, number)
        await eventually(lambda: not command_line(pid), f"the end of {daemon}")

    def guests(self) -> dict[str, int]:
        """The process ids of the QEMUs that run, by the names of their domains."""
        found = {path.stem: int(path.read_text()) for path in (self._home / "run" / "qemu").glob("*.pid")}
        return {name: pid for name, pid in found.items() if command_line(pid)}

    def memory(self, domain: str) -> Path:
        """The file that a domain's memory is in while it is suspended."""
        return self._home / "lib" / "qemu" / "save" / f"{domain}.save"

    async def clean_up(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            connection = libvirt.open(self.uri)
            for network in connection.listAllNetworks():
                network.destroy()
            connection.close()
        for daemon in ("libvirtd", "virtlogd"):
            with contextlib.suppress(OSError, ValueError):
                await self.kill(signal.SIGTERM, daemon)
        for pid in self.guests().values():
            os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def own_libvirt(home: Path) -> AsyncIterator[OwnLibvirt]:
    if os.geteuid() != 0:
        pytest.skip("only root can give a libvirtd folders of its own")
    home.mkdir()
    home.chmod(0o755)
    if Path("/var/cache/libvirt").exists():  # what QEMU can do is found out once
        shutil.copytree("/var/cache/libvirt", home / "cache")
    mounts = []
    for name, path in FOLDERS.items():
        (home / name).mkdir(exist_ok=True)
        mounts.append(f"mount --bind {home / name} {path}")
    if kvm_trouble() is not None and Path("/dev/kvm").exists():
        mounts.append(f"mount --bind {RUN / 'nebula-closed-kvm'} /dev/kvm")
    script = " && ".join([*mounts, "ip link set lo up", "echo ready", "exec sleep infinity"])
    holder = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", script),
        stdout=asyncio.subprocess.PIPE,
    )
    own = OwnLibvirt(home, holder.pid)
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"ready\n"
        await own.start("virtlogd")
        await own.start()
        await ensure_libvirt(own.uri)
        yield own
    finally:
        await own.clean_up()
        holder.kill()
        await holder.wait()
