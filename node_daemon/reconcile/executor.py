"""Carries out one step of the plan. Every step may be carried out again, whatever became of it before."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, assert_never

from domain.contract import ImageSource, SeedMedium, Wanted
from domain.contract.wanted import OWN, SERIES, VmDisk
from node_daemon.failure import Permanent, Superseded
from node_daemon.hypervisor.hypervisor import Boot, Have, Hypervisor, Overlay, Refused
from node_daemon.reconcile.plan import (
    Action,
    Create,
    Destroy,
    Discard,
    Host,
    Keep,
    Pause,
    Remove,
    Restore,
    Shutdown,
    Start,
    Suspend,
    Unpause,
)
from node_daemon.reconcile.start_slots import StartSlots
from node_daemon.storage.shared import Hear, Stage
from node_daemon.storage.storage import DiskStore, ImageStore
from runtime import logs
from runtime.images.disk_image import Format
from runtime.tasks.gauge import Gauge, share

log = logs.get(__name__)

T = TypeVar("T")

#: Seconds between two requests to power off, which a guest that is still booting misses, and between two tries to go on
#: after an I/O error.
ASK_AGAIN = 5.0
#: Seconds between looks whether an image that is being fetched is still wanted.
LOOK = 0.5
#: MiB a second that the disk takes at the least.
SLOWEST_DISK = 16
#: Domains that are started at a time.
STARTS = 8

#: Why an image cannot be had from its source: codes.
UNFIT = ("image_missing", "image_not_allowed", "image_encoded", "image_invalid", "checksum_mismatch")

#: What a VM is preparing while an image is on its way.
WORDS: dict[Stage, str] = {
    "arriving": "image",
    "from source": "image, from its source",
    "converting": "image, converting",
}

Newest = Callable[[], Wanted | None]
"""The newest document of the VM at hand."""

Progress = Callable[[str], None]
"""Told what is being worked on: image (with how much of it has come), disk, domain."""


class Executor:
    def __init__(
        self, hypervisor: Hypervisor, images: ImageStore, disks: DiskStore, host: Host, starts: int = STARTS
    ) -> None:
        self._hypervisor = hypervisor
        self._images = images
        self._disks = disks
        self._host = host
        self._start_slots = StartSlots(starts)
        self._asked: dict[str, float] = {}

    async def look(self, vm: str) -> Have:
        """The VM's domain and files as they are now. Raises Unreachable."""
        return replace(await self._hypervisor.look(vm), files=self._disks.has_files(vm))

    async def carry_out(self, step: Action, newest: Newest, progress: Progress) -> Have | None:
        """Do it; what there is afterwards, where that is known without another look.

        Raises Permanent, Superseded, and whatever else may pass by itself.
        """
        started = time.perf_counter()
        have: Have | None = None
        match step:
            case Create(wanted=wanted):
                have = await self._create(wanted, newest, progress)
            case Start(wanted=wanted):
                self._check_disk(wanted)
                await self._disks.grow(wanted.vm, wanted.disk_gib, wanted.disk)
                have = await self._start(wanted, newest, progress)
            case Keep():
                await self._hypervisor.keep(step.vm)
            case Shutdown():
                if time.monotonic() - self._asked.get(step.vm, -ASK_AGAIN) < ASK_AGAIN:
                    return None
                self._asked[step.vm] = time.monotonic()
                await self._hypervisor.shutdown(step.vm)
            case Pause():
                await self._hypervisor.pause(step.vm)
            case Unpause():
                if step.stalled and time.monotonic() - self._asked.get(step.vm, -ASK_AGAIN) < ASK_AGAIN:
                    return None
                self._asked[step.vm] = time.monotonic()
                await self._hypervisor.unpause(step.vm)
            case Suspend(wanted=wanted):
                await self._hypervisor.suspend(step.vm, patience(wanted))
            case Restore(wanted=wanted):
                self._check_disk(wanted)
                for disk in reversed(wanted.disks):
                    await self._under(wanted, disk, newest, progress)
                if boot_image(wanted).seed is SeedMedium.DISK and not self._disks.has_seed(wanted.vm):
                    await self._disks.make_seed(wanted.vm, wanted.seed_url)
                async with self._start_slots.one():
                    still(wanted, newest)
                    await self._hypervisor.restore(step.vm, self._host.boot_id, patience(wanted))
            case Discard():
                await self._hypervisor.discard(step.vm)
            case Destroy():
                await self._hypervisor.destroy(step.vm)
            case Remove():
                await self._hypervisor.undefine(step.vm)
                await asyncio.to_thread(self._disks.remove, step.vm)
                self._asked.pop(step.vm, None)
            case _:
                assert_never(step)
        milliseconds = round((time.perf_counter() - started) * 1000, 1)
        log.info("step done", step=type(step).__name__.lower(), ms=milliseconds)
        return have

    async def _create(self, wanted: Wanted, newest: Newest, progress: Progress) -> Have:
        """What this call makes goes again when the domain cannot be had; a disk from before may hold data."""
        made = False
        try:
            if not self._disks.has_disk(wanted.vm, wanted.disk):
                if wanted.disk <= wanted.disk_made:
                    raise disk_missing(self._disks.disk(wanted.vm, wanted.disk))
                made = await self._make(wanted, wanted.disks[-1], newest, progress)
            if not made:
                await self._disks.grow(wanted.vm, wanted.disk_gib, wanted.disk)
            progress("domain")
            return await self._start(wanted, newest, progress)
        except Permanent:
            if made:
                await asyncio.to_thread(self._disks.remove, wanted.vm)
            raise

    async def _start(self, wanted: Wanted, newest: Newest, progress: Progress) -> Have:
        """Its own disk is there; any other is made now, unless it is there. Disks that are over are deleted first."""
        kept = {disk.series: disk.number for disk in wanted.disks}
        for series in SERIES:
            over = kept.get(series, wanted.boots + 1)
            await asyncio.to_thread(self._disks.remove_earlier, wanted.vm, over, series)
        overlays: list[Overlay] = []
        for disk in reversed(wanted.disks):
            if disk.series != OWN and not self._disks.has_disk(wanted.vm, disk.number, disk.series):
                await self._make(wanted, disk, newest, progress)
            overlays.insert(0, await self._under(wanted, disk, newest, progress))
        on_disk = boot_image(wanted).seed is SeedMedium.DISK
        seed = await self._disks.make_seed(wanted.vm, wanted.seed_url) if on_disk else None
        boot = Boot(
            wanted=wanted,
            **overlays[0]._asdict(),
            console=str(self._disks.console(wanted.vm)),
            host_boot=self._host.boot_id,
            seed=str(seed) if seed else None,
            further=tuple(overlays[1:]),
        )
        self._asked.pop(wanted.vm, None)
        try:
            async with self._start_slots.one():
                still(wanted, newest)
                return replace(await self._hypervisor.start(boot), files=True)
        except Refused as refusal:
            if refusal.invalid:
                raise Permanent("domain_invalid", refusal.detail) from refusal
            raise

    def _check_disk(self, wanted: Wanted) -> None:
        if not self._disks.has_disk(wanted.vm, wanted.disk):
            raise disk_missing(self._disks.disk(wanted.vm, wanted.disk))

    async def _make(self, wanted: Wanted, disk: VmDisk, newest: Newest, progress: Progress) -> bool:
        """Make a disk from its image. Whether it was made now."""
        progress("image")
        base = await while_wanted(self._images.ensure(image_of(disk), seldom(progress)), wanted, newest)
        progress("disk")
        return await self._disks.ensure(wanted.vm, base, wanted.disk_gib, disk.number, disk.series)

    async def _under(self, wanted: Wanted, disk: VmDisk, newest: Newest, progress: Progress) -> Overlay:
        """A disk that is there, with the image under it in the form that it was made from: that is fetched again."""
        image = image_of(disk)
        base, form = await asyncio.to_thread(self._base, wanted.vm, disk, image)
        try:
            await while_wanted(self._images.ensure_under(image, form, seldom(progress)), wanted, newest)
        except Permanent as failure:
            if failure.code in UNFIT:
                raise base_missing(base, failure) from failure
            raise
        return Overlay(str(self._disks.disk(wanted.vm, disk.number, disk.series)), str(base), form)

    def _base(self, vm: str, disk: VmDisk, image: ImageSource) -> tuple[Path, Format]:
        """The image under a disk, in the form that the disk was made from; and the VM's folders. Raises OSError."""
        self._disks.make_folders(vm)
        return self._images.under(image, self._disks.base(vm, disk.number, disk.series))


def seldom(progress: Progress) -> Hear:
    """Hears how far an image is, and tells now and then: each word is an event."""
    doing: Stage = "arriving"
    gauge = Gauge(lambda done, total: progress(f"{WORDS[doing]}, {share(done, total)}"))

    def hear(stage: Stage, done: int, total: int | None) -> None:
        nonlocal doing
        doing = stage
        gauge(done, total)

    return hear


def patience(wanted: Wanted) -> float:
    """Seconds that a VM's memory may take to or from the disk."""
    return 60.0 + wanted.memory_mib / SLOWEST_DISK


def image_of(disk: VmDisk) -> ImageSource:
    if disk.image is None:
        raise Permanent("image_missing", "the document names no image")
    return disk.image


def boot_image(wanted: Wanted) -> ImageSource:
    return image_of(wanted.disks[0])


def disk_missing(disk: Path) -> Permanent:
    detail = f"the VM's disk {disk} is gone from the node; put it back and start the VM, or rebuild the VM on a new one"
    return Permanent("disk_missing", detail)


def base_missing(base: Path, why: Permanent) -> Permanent:
    detail = f"the image under the VM's disk is gone from the node, and cannot be fetched again: {why.detail}; put it "
    return Permanent("base_missing", f"{detail}back there, or at {base}, and start the VM, or rebuild the VM")


def still(wanted: Wanted, newest: Newest) -> None:
    """Raises Superseded where, while it waited for its turn, a step has become another's business."""
    if newest() != wanted:
        raise Superseded


async def while_wanted(work: Awaitable[T], wanted: Wanted, newest: Newest) -> T:
    """The result of `work`; Superseded as soon as the VM is not to be any more what it was wanted to be."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK)
            want = newest()
            if want is None or want.desired is not wanted.desired:
                raise Superseded
        return task.result()
    finally:
        task.cancel()
