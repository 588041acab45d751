"""The files of a VM on this host: its root disk (an overlay on a base image), its seed disk, and its console log."""

import asyncio
import contextlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import BinaryIO

from domain.contract import SeedMedium
from node_daemon.failure import Permanent, Temporary, of_os_error
from node_daemon.hypervisor import console_log
from node_daemon.storage import seed_disk
from node_daemon.storage.backing import base_of, bases
from node_daemon.storage.base_image import BaseImage
from node_daemon.storage.folder import new_folder
from node_daemon.storage.storage import Series
from runtime.files.files import put_in_place
from runtime.images.qemu_img import QemuImgError, hand_over, qemu_img, take_back

GIB = 1024**3
#: At most so many empty overlays are cached in memory, each with at most so many bytes.
MOST_EMPTY, EMPTY_BYTES = 64, 1024**2
#: libvirt changes the owner of the file to QEMU's user when the domain starts.
PRIVATE = 0o600
#: The disk whose file name has no number.
FIRST: tuple[Series, int] = ("root", 1)


class Disks:
    """`disks/<vm>/root.qcow2`, `disks/<vm>/cidata.iso` and `consoles/<vm>.log` in one data directory.

    The n-th disk of a VM (it was rebuilt) is `root-<n>.qcow2`; earlier ones are deleted. Disks of other series are
    `<series>-<n>.qcow2`.
    """

    def __init__(self, data_dir: Path) -> None:
        self._disks = new_folder(data_dir / "disks")
        self.consoles = new_folder(data_dir / "consoles", 0o700)
        self._empty: dict[tuple[BaseImage, int], bytes] = {}
        for leftover in self._disks.glob("*/*.part"):
            leftover.unlink()

    def disk(self, vm: str, number: int = 1, series: Series = "root") -> Path:
        return self._disks / vm / ("root.qcow2" if (series, number) == FIRST else f"{series}-{number}.qcow2")

    def base(self, vm: str, number: int = 1, series: Series = "root") -> Path | None:
        """The backing file that a disk names; None if it names none. Raises OSError. Called on a thread."""
        return base_of(self.disk(vm, number, series))

    async def make_seed(self, vm: str, url: str, medium: SeedMedium) -> Path:
        """Make the seed disk for this URL. Raises Permanent (disk_full) or Temporary."""
        try:
            await asyncio.to_thread(new_folder, self._seed(vm).parent)
        except OSError as error:
            raise of_os_error(error) from error
        await seed_disk.make(self._seed(vm), url, medium)
        return self._seed(vm)

    def has_seed(self, vm: str) -> bool:
        return self._seed(vm).exists()

    def _seed(self, vm: str) -> Path:
        return self._disks / vm / "cidata.iso"

    def console(self, vm: str) -> Path:
        return self.consoles / f"{vm}.log"

    def make_folders(self, vm: str) -> None:
        """Make the folders for the files of a VM if they are missing. Raises OSError."""
        new_folder(self.disk(vm).parent)
        new_folder(self.consoles, 0o700)

    def has_disk(self, vm: str, number: int = 1, series: Series = "root") -> bool:
        return self.disk(vm, number, series).exists()

    def has_files(self, vm: str) -> bool:
        return self.disk(vm).parent.exists() or bool(console_log.parts(self.console(vm)))

    async def ensure(self, vm: str, base: BaseImage, size_gib: int, number: int = 1, series: Series = "root") -> bool:
        """Make a disk of `size_gib` if it is missing. Returns whether it was made now.

        Raises Permanent (disk_too_small, disk_full) or Temporary.
        """
        disk = self.disk(vm, number, series)
        if disk.exists():
            return False
        check_size(base, size_gib)
        part = new_folder(disk.parent) / f"{uuid.uuid4().hex}.part"
        try:
            await self._make_overlay(part, base, size_gib)
            await asyncio.to_thread(put_in_place, part, disk, PRIVATE)
        except QemuImgError as error:
            raise Temporary(f"cannot make the disk: {error}") from error
        except OSError as error:
            raise of_os_error(error) from error
        finally:
            part.unlink(missing_ok=True)
        return True

    async def _make_overlay(self, part: Path, base: BaseImage, size_gib: int) -> None:
        """Make an empty overlay. Those of one size on one image are equal: qemu-img makes one, the
        others are copies.
        """
        empty = self._empty.get((base, size_gib))
        if empty is not None:
            await asyncio.to_thread(part.write_bytes, empty)
            return
        overlay = ("create", "-q", "-f", "qcow2", "-b", os.fspath(base.path), "-F", base.format)
        await qemu_img(*overlay, os.fspath(part), f"{size_gib}G")
        if part.stat().st_size <= EMPTY_BYTES:
            if len(self._empty) >= MOST_EMPTY:
                self._empty.clear()
            self._empty[base, size_gib] = await asyncio.to_thread(part.read_bytes)

    def bases(self) -> set[Path]:
        """The backing images of all disks. Raises OSError. Called on a thread."""
        return bases(self._disks)

    async def grow(self, vm: str, size_gib: int, number: int = 1) -> None:
        """Grow the root disk of a domain that is off to `size_gib`, if it is smaller.

        Raises Permanent (disk_full) or Temporary.
        """
        try:
            with self.disk(vm, number).open("r+b") as file:
                hand_over(file)
                try:
                    await _grow(file, size_gib)
                finally:
                    take_back(file)
        except QemuImgError as error:
            raise Temporary(f"cannot grow the disk: {error}") from error
        except OSError as error:
            raise of_os_error(error) from error

    def remove_earlier(self, vm: str, number: int, series: Series = "root") -> None:
        """Delete the disks of a series with lower numbers. No error if there are none."""
        for disk in self.disk(vm).parent.glob(f"{series}*.qcow2"):
            if (earlier := _number(disk, series)) is not None and earlier < number:
                disk.unlink(missing_ok=True)

    def remove_seed(self, vm: str) -> None:
        """Delete the seed disk, and the folder of the VM if it has nothing else. No error if there is none."""
        self._seed(vm).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._seed(vm).parent.rmdir()

    def remove(self, vm: str) -> None:
        """Delete all files of a VM. No error if there are none. Raises Temporary if a file cannot be deleted."""
        shutil.rmtree(self.disk(vm).parent, ignore_errors=True)
        console_log.remove(self.console(vm))
        if (folder := self.disk(vm).parent).exists():
            raise Temporary(f"cannot delete {folder}")


def _number(disk: Path, series: Series) -> int | None:
    """The number of a disk file in its series; None for any other file."""
    name, _, number = disk.stem.rpartition("-")
    if disk.stem == "root":
        name, number = FIRST[0], str(FIRST[1])
    return int(number) if name == series and number.isdecimal() else None


async def _grow(file: BinaryIO, size_gib: int) -> None:
    """Grow the disk with an unprivileged qemu-img, because a guest may have damaged the disk. It opens no other file,
    not even the backing file.
    """
    node = {"driver": "file", "filename": f"/proc/self/fd/{file.fileno()}"}
    disk = "json:" + json.dumps({"driver": "qcow2", "file": node, "backing": None})
    info = json.loads(await qemu_img("info", "--output=json", disk, files=[file.fileno()]))
    if int(info["virtual-size"]) < size_gib * GIB:
        await qemu_img("resize", "-q", disk, f"{size_gib}G", files=[file.fileno()])


def check_size(base: BaseImage, size_gib: int) -> None:
    """Raises Permanent (disk_too_small) if a disk of this size cannot hold the image."""
    if base.virtual_bytes > size_gib * GIB:
        least = -(-base.virtual_bytes // GIB)
        detail = f"the image needs a disk of {least} GiB or more, not {size_gib}: create the VM with a larger disk_gib"
        raise Permanent("disk_too_small", detail)
