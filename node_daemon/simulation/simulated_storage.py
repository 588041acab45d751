"""Images and disks of a simulated host: remembered, never stored."""

import asyncio
import random
from pathlib import Path

from domain.contract import ImageSource
from node_daemon.simulation.host_store import HostStore
from node_daemon.storage.base_image import BaseImage
from node_daemon.storage.disks import check_size
from node_daemon.storage.images import unheard
from node_daemon.storage.shared import Hear
from node_daemon.storage.storage import Series
from runtime.images.disk_image import Format

IMAGE, DISK, CONFIGURED = "image", "disk", "configured"


class SimulatedImages:
    """Every image there is, after `seconds` at its first use on this host. Not a byte of it is read."""

    def __init__(self, node: str, host_store: HostStore, seconds: float = 0.0) -> None:
        self._node = node
        self._host_store = host_store
        self._seconds = seconds
        self._there = set(host_store.all(node, IMAGE))

    def under(self, source: ImageSource, named: Path | None) -> tuple[Path, Format]:
        """As it comes: nothing is there to be converted."""
        return Path("/simulated") / self._node / f"{source.sha256.lower()}.{source.format}", source.format

    async def ensure_under(self, source: ImageSource, form: Format, hear: Hear = unheard) -> None:
        await self.ensure(source, hear)

    async def ensure(self, source: ImageSource, hear: Hear = unheard) -> BaseImage:
        path, form = self.under(source, None)
        if path.name not in self._there:
            await asyncio.sleep(self._seconds * random.uniform(0.5, 1.5))  # noqa: S311  (no secret)
            self._there.add(path.name)
            self._host_store.put(self._node, IMAGE, path.name, source.image)
        return BaseImage(path=path, format=form, virtual_bytes=source.virtual_size_bytes)


def _name(vm: str, number: int, series: Series) -> str:
    """What a disk of a VM is remembered by: the first one by the VM's id alone."""
    if series == "root":
        return vm if number == 1 else f"{vm}#{number}"
    return f"{vm}#{series}-{number}"


def _number(name: str, series: Series) -> int | None:
    """Which disk of a series is remembered by a name; None for one of another."""
    _, _, rest = name.partition("#")
    of, _, number = rest.rpartition("-")
    return int(number or 1) if (of or "root") == series else None


Booted = tuple[int, int]
"""A boot of a guest: the count that its domain was started for, and how often the guest has reset itself since."""


def boot_in(said: str) -> Booted:
    boots, _, resets = said.partition(".")
    return int(boots), int(resets or 0)


class SimulatedDisks:
    """Which disks there are, of what size in GiB; and what the guests' own cloud-init notes on them."""

    def __init__(self, node: str, host_store: HostStore) -> None:
        self._node = node
        self._host_store = host_store
        self._sizes = {vm: int(size) for vm, size in host_store.all(node, DISK).items()}
        self._configured = {vm: boot_in(said) for vm, said in host_store.all(node, CONFIGURED).items()}

    def all(self) -> dict[str, int]:
        return dict(self._sizes)

    def configured(self, vm: str) -> Booted:
        """The last boot at which the guest got its configuration; none while it is as its image made it."""
        return self._configured.get(vm, (0, 0))

    def note_configured(self, vm: str, boot: Booted) -> None:
        if self._of(vm):
            self._configured[vm] = boot
            self._host_store.put(self._node, CONFIGURED, vm, "{}.{}".format(*boot))

    def disk(self, vm: str, number: int = 1, series: Series = "root") -> Path:
        return Path("/simulated") / self._node / _name(vm, number, series) / "root.qcow2"

    def base(self, vm: str, number: int = 1, series: Series = "root") -> Path | None:
        return None

    async def make_seed(self, vm: str, url: str) -> Path:
        """Simulated guests ask the data source themselves, whatever their image says."""
        return self.disk(vm).with_name("cidata.iso")

    def has_seed(self, vm: str) -> bool:
        return True

    def console(self, vm: str) -> Path:
        return Path("/simulated") / self._node / f"{vm}.log"

    def make_folders(self, vm: str) -> None:
        """There are none."""

    def has_disk(self, vm: str, number: int = 1, series: Series = "root") -> bool:
        return _name(vm, number, series) in self._sizes

    def has_files(self, vm: str) -> bool:
        return bool(self._of(vm))

    async def ensure(self, vm: str, base: BaseImage, size_gib: int, number: int = 1, series: Series = "root") -> bool:
        if self.has_disk(vm, number, series):
            return False
        check_size(base, size_gib)
        self._put(_name(vm, number, series), size_gib)
        return True

    async def grow(self, vm: str, size_gib: int, number: int = 1) -> None:
        if self._sizes.get(_name(vm, number, "root"), size_gib) < size_gib:
            self._put(_name(vm, number, "root"), size_gib)

    def remove_earlier(self, vm: str, number: int, series: Series = "root") -> None:
        for name in self._of(vm):
            if (earlier := _number(name, series)) is not None and earlier < number:
                self._drop(name)
                if series == "root":
                    self._forget(vm)

    def remove(self, vm: str) -> None:
        for name in self._of(vm):
            self._drop(name)
        self._forget(vm)

    def _of(self, vm: str) -> list[str]:
        """The names of all disks of a VM."""
        return [name for name in self._sizes if name.split("#")[0] == vm]

    def _put(self, name: str, size_gib: int) -> None:
        self._sizes[name] = size_gib
        self._host_store.put(self._node, DISK, name, str(size_gib))

    def _drop(self, name: str) -> None:
        del self._sizes[name]
        self._host_store.remove(self._node, DISK, name)

    def _forget(self, vm: str) -> None:
        """What the guest noted of itself goes with its disk."""
        if self._configured.pop(vm, None) is not None:
            self._host_store.remove(self._node, CONFIGURED, vm)
