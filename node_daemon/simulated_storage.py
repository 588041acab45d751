"""Images and disks of a simulated host: remembered, never stored."""

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from domain.contract import ImageSource
from node_daemon.disks import check_size
from node_daemon.images import BaseImage, untold
from node_daemon.shelf import Shelf
from runtime.download import Tell

IMAGE, DISK, CONFIGURED = "image", "disk", "configured"


class SimulatedImages:
    """Every image there is, after `seconds` at its first use on this host. Not a byte of it is read."""

    def __init__(self, node: str, shelf: Shelf, seconds: float = 0.0) -> None:
        self._node = node
        self._shelf = shelf
        self._seconds = seconds
        self._there = set(shelf.all(node, IMAGE))

    def path(self, source: ImageSource) -> Path:
        return Path("/simulated") / self._node / f"{source.sha256.lower()}.{source.format}"

    async def ensure(self, source: ImageSource, tell: Tell = untold) -> BaseImage:
        path = self.path(source)
        if path.name not in self._there:
            await asyncio.sleep(self._seconds * random.uniform(0.5, 1.5))  # noqa: S311  (no secret)
            self._there.add(path.name)
            self._shelf.put(self._node, IMAGE, path.name, source.image)
        return BaseImage(path=path, format=source.format, virtual_bytes=source.virtual_size_bytes)


@dataclass(frozen=True)
class Disk:
    size_gib: int
    #: how many disks the VM has had, with this one
    number: int = 1


_DISK = TypeAdapter(Disk)


class SimulatedDisks:
    """Which disk each VM is on, and what the guests' own cloud-init notes there. A new disk replaces the earlier."""

    def __init__(self, node: str, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf
        self._disks = {vm: _DISK.validate_json(body) for vm, body in shelf.all(node, DISK).items()}
        self._configured = {vm: int(boots) for vm, boots in shelf.all(node, CONFIGURED).items()}

    def all(self) -> dict[str, Disk]:
        return dict(self._disks)

    def configured(self, vm: str) -> int:
        """The last boot at which the guest got its configuration; 0 while it is as its image made it."""
        return self._configured.get(vm, 0)

    def note_configured(self, vm: str, boots: int) -> None:
        if vm in self._disks:
            self._configured[vm] = boots
            self._shelf.put(self._node, CONFIGURED, vm, str(boots))

    def disk(self, vm: str, number: int = 1) -> Path:
        return Path("/simulated") / self._node / vm / f"root-{number}.qcow2"

    def console(self, vm: str) -> Path:
        return Path("/simulated") / self._node / f"{vm}.log"

    def has_disk(self, vm: str, number: int = 1) -> bool:
        return vm in self._disks and self._disks[vm].number == number

    def has_files(self, vm: str) -> bool:
        return vm in self._disks

    async def ensure(self, vm: str, base: BaseImage, size_gib: int, number: int = 1) -> bool:
        if self.has_disk(vm, number):
            return False
        check_size(base, size_gib)
        self._forget_configured(vm)
        self._put(vm, Disk(size_gib, number))
        return True

    async def grow(self, vm: str, size_gib: int, number: int = 1) -> None:
        if self.has_disk(vm, number) and self._disks[vm].size_gib < size_gib:
            self._put(vm, Disk(size_gib, number))

    def remove_earlier(self, vm: str, number: int) -> None:
        """There is none: a new disk takes the earlier's place."""

    def remove(self, vm: str) -> None:
        if self._disks.pop(vm, None) is not None:
            self._shelf.remove(self._node, DISK, vm)
        self._forget_configured(vm)

    def _put(self, vm: str, disk: Disk) -> None:
        self._disks[vm] = disk
        self._shelf.put(self._node, DISK, vm, _DISK.dump_json(disk).decode())

    def _forget_configured(self, vm: str) -> None:
        if self._configured.pop(vm, None) is not None:
            self._shelf.remove(self._node, CONFIGURED, vm)
