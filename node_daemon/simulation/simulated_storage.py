"""Images and disks of a simulated host: only their names and sizes are stored."""

import asyncio
import random
from pathlib import Path

from domain.contract import ImageSource, SeedMedium
from node_daemon.simulation.host_store import HostStore
from node_daemon.storage.base_image import BaseImage
from node_daemon.storage.disks import check_size
from node_daemon.storage.images import ignore_progress
from node_daemon.storage.shared import Hear
from node_daemon.storage.storage import Series
from runtime.images.disk_image import Format

IMAGE, DISK, CONFIGURED = "image", "disk", "configured"


class SimulatedImages:
    """The images of a simulated host. The first use of an image takes about `seconds`. No image is read."""

    def __init__(self, node: str, host_store: HostStore, seconds: float = 0.0) -> None:
        self._node = node
        self._host_store = host_store
        self._seconds = seconds
        self._cached = set(host_store.all(node, IMAGE))

    def under(self, source: ImageSource, named: Path | None) -> tuple[Path, Format]:
        """A name in the format of the source: nothing is converted."""
        return Path("/simulated") / self._node / f"{source.sha256.lower()}.{source.format}", source.format

    async def ensure_under(self, source: ImageSource, form: Format, hear: Hear = ignore_progress) -> None:
        await self.ensure(source, hear)

    async def ensure(self, source: ImageSource, hear: Hear = ignore_progress) -> BaseImage:
        path, form = self.under(source, None)
        if path.name not in self._cached:
            await asyncio.sleep(self._seconds * random.uniform(0.5, 1.5))  # noqa: S311  (no secret)
            self._cached.add(path.name)
            self._host_store.put(self._node, IMAGE, path.name, source.image)
        return BaseImage(path=path, format=form, virtual_bytes=source.virtual_size_bytes)


def _name(vm: str, number: int, series: Series) -> str:
    """The key of a disk in the host store. For the first root disk it is the VM's id. Keys are stored."""
    if series == "root":
        return vm if number == 1 else f"{vm}#{number}"
    return f"{vm}#{series}-{number}"


def vm_of(name: str) -> str:
    """The id of the VM that has the disk with this key."""
    return name.partition("#")[0]


def _number(name: str, series: Series) -> int | None:
    """The number of the disk with this key in a series; None if it is of another series."""
    _, _, rest = name.partition("#")
    of, _, number = rest.rpartition("-")
    return int(number or 1) if (of or "root") == series else None


Booted = tuple[int, int]
"""A boot of a guest: `boots` of its domain, and the resets of the guest since its start."""


def parse_boot(text: str) -> Booted:
    boots, _, resets = text.partition(".")
    return int(boots), int(resets or 0)


class SimulatedDisks:
    """The disks with their sizes in GiB, and the last boot that cloud-init of each guest has configured."""

    def __init__(self, node: str, host_store: HostStore) -> None:
        self._node = node
        self._host_store = host_store
        self._sizes: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}
        """The keys of all disks of each VM."""
        for name, size in host_store.all(node, DISK).items():
            self._note(name, int(size))
        self._configured = {vm: parse_boot(text) for vm, text in host_store.all(node, CONFIGURED).items()}

    def all(self) -> dict[str, int]:
        return dict(self._sizes)

    def configured(self, vm: str) -> Booted:
        """The last boot in which the guest was configured; zeros if it never was."""
        return self._configured.get(vm, (0, 0))

    def note_configured(self, vm: str, boot: Booted) -> None:
        if self._of(vm):
            self._configured[vm] = boot
            self._host_store.put(self._node, CONFIGURED, vm, "{}.{}".format(*boot))

    def disk(self, vm: str, number: int = 1, series: Series = "root") -> Path:
        return Path("/simulated") / self._node / _name(vm, number, series) / "root.qcow2"

    def base(self, vm: str, number: int = 1, series: Series = "root") -> Path | None:
        return None

    async def make_seed(self, vm: str, url: str, medium: SeedMedium) -> Path:
        """Makes nothing: simulated guests always fetch their seed over HTTP."""
        return self.disk(vm).with_name("cidata.iso")

    def has_seed(self, vm: str) -> bool:
        return True

    def console(self, vm: str) -> Path:
        return Path("/simulated") / self._node / f"{vm}.log"

    def make_folders(self, vm: str) -> None:
        """Makes nothing: there are no folders."""

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

    def remove_seed(self, vm: str) -> None:
        """Nothing was made."""

    def remove(self, vm: str) -> None:
        for name in self._of(vm):
            self._drop(name)
        self._forget(vm)

    def _of(self, vm: str) -> list[str]:
        """The keys of all disks of a VM."""
        return list(self._names.get(vm, ()))

    def _note(self, name: str, size_gib: int) -> None:
        if name not in self._sizes:
            self._names.setdefault(vm_of(name), []).append(name)
        self._sizes[name] = size_gib

    def _put(self, name: str, size_gib: int) -> None:
        self._note(name, size_gib)
        self._host_store.put(self._node, DISK, name, str(size_gib))

    def _drop(self, name: str) -> None:
        del self._sizes[name]
        others = self._names[vm_of(name)]
        others.remove(name)
        if not others:
            del self._names[vm_of(name)]
        self._host_store.remove(self._node, DISK, name)

    def _forget(self, vm: str) -> None:
        """Forget the configured boot of a guest whose disk was deleted."""
        if self._configured.pop(vm, None) is not None:
            self._host_store.remove(self._node, CONFIGURED, vm)
