"""Carries out one step of the plan. Each step is idempotent: it may be repeated after any outcome."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, assert_never

from domain.contract import ImageSource, SeedMedium, Wanted
from domain.contract.wanted import OWN, SERIES, VmDisk
from node_daemon.failure import Permanent, Superseded
from node_daemon.hypervisor.hypervisor import Boot, Have, Hypervisor, Overlay, Refused
from node_daemon.network.host_firewall import Firewall, NoFirewall
from node_daemon.reconcile.plan import (
    Action,
    Create,
    Destroy,
    Discard,
    Host,
    Pause,
    Persist,
    Remove,
    Restore,
    Shutdown,
    Start,
    Suspend,
    Unpause,
)
from node_daemon.reconcile.start_slots import StartSlots
from node_daemon.storage.shared import Hear, Stage
from node_daemon.storage.storage import DiskStore, ImageStore, Series
from runtime import logs
from runtime.images.disk_image import Format
from runtime.tasks.gauge import Gauge, share

log = logs.get(__name__)

T = TypeVar("T")

#: Seconds between two requests to power off (a guest that still boots ignores them), and between two tries to resume
#: after an I/O error.
ASK_AGAIN = 5.0
#: Seconds between checks whether an image that is being fetched is still wanted.
LOOK = 0.5
#: Lowest speed of the disk in MiB per second that time limits allow for.
SLOWEST_DISK = 16
#: Maximum number of domains that are started concurrently.
STARTS = 8

#: Codes of permanent problems with an image.
UNFIT = ("image_missing", "image_not_allowed", "image_encoded", "image_invalid", "checksum_mismatch")

#: The step that a VM reports while its image is fetched, by stage.
WORDS: dict[Stage, str] = {
    "arriving": "image",
    "from source": "image, from its source",
    "converting": "image, converting",
}

Newest = Callable[[], Wanted | None]
"""Returns the newest document of the VM."""

Progress = Callable[[str], None]
"""Called with the step that is in progress: image (with the fetched share), disk, domain."""


class Executor:
    def __init__(
        self,
        hypervisor: Hypervisor,
        images: ImageStore,
        disks: DiskStore,
        host: Host,
        starts: int = STARTS,
        firewall: Firewall | None = None,
    ) -> None:
        self._firewall = firewall or NoFirewall()
        self._hypervisor = hypervisor
        self._images = images
        self._disks = disks
        self._host = host
        self._start_slots = StartSlots(starts)
        self._last_request: dict[str, float] = {}

    async def look(self, vm: str) -> Have:
        """The VM's domain and files as they are now. Raises Unreachable."""
        return replace(await self._hypervisor.look(vm), files=self._disks.has_files(vm))

    async def carry_out(self, step: Action, newest: Newest, progress: Progress) -> Have | None:
        """Carry out the step. Returns the new state of the VM; None if it has to be looked at.

        Raises Permanent, Superseded, and any other error, after which a retry may succeed.
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
            case Persist():
                await self._hypervisor.persist(step.vm)
            case Shutdown():
                if time.monotonic() - self._last_request.get(step.vm, -ASK_AGAIN) < ASK_AGAIN:
                    return None
                self._last_request[step.vm] = time.monotonic()
                await self._hypervisor.shutdown(step.vm)
            case Pause():
                await self._hypervisor.pause(step.vm)
            case Unpause():
                if step.stalled and time.monotonic() - self._last_request.get(step.vm, -ASK_AGAIN) < ASK_AGAIN:
                    return None
                self._last_request[step.vm] = time.monotonic()
                await self._hypervisor.unpause(step.vm)
            case Suspend(wanted=wanted):
                await self._hypervisor.suspend(step.vm, patience(wanted))
            case Restore(wanted=wanted):
                self._check_disk(wanted)
                for disk in reversed(wanted.disks):
                    await self._under(wanted, disk, newest, progress)
                if not self._disks.has_seed(wanted.vm):
                    await self._disks.make_seed(wanted.vm, wanted.seed_url, boot_image(wanted).seed)
                async with self._start_slots.one():
                    check_newest(wanted, newest)
                    async with self._firewall.starting(wanted.vm, wanted.mac, wanted.project, wanted.seed_url):
                        await self._hypervisor.restore(step.vm, self._host.boot_id, patience(wanted))
            case Discard():
                await self._hypervisor.discard(step.vm, leftover=step.leftover)
            case Destroy():
                await self._hypervisor.destroy(step.vm)
            case Remove():
                await self._hypervisor.undefine(step.vm)
                await asyncio.to_thread(self._disks.remove, step.vm)
                self._last_request.pop(step.vm, None)
            case _:
                assert_never(step)
        milliseconds = round((time.perf_counter() - started) * 1000, 1)
        log.info("step done", step=type(step).__name__.lower(), ms=milliseconds)
        return have

    async def _create(self, wanted: Wanted, newest: Newest, progress: Progress) -> Have:
        """If the domain cannot be started, what this call made is deleted; an older disk may have data."""
        made, seeding, seed = False, None, None
        try:
            if not self._disks.has_disk(wanted.vm, wanted.disk):
                if wanted.disk <= wanted.disk_made:
                    raise disk_missing(self._disks.disk(wanted.vm, wanted.disk))
                seeding = asyncio.create_task(self._seed_ahead(wanted))
                try:
                    made = await self._make(wanted, wanted.disks[-1], newest, progress)
                finally:  # a seed disk that is being written must not appear after the files were removed
                    await asyncio.wait({seeding})
                    failed = seeding.exception()
                seed = None if failed is not None else seeding.result()
            if not made:
                await self._disks.grow(wanted.vm, wanted.disk_gib, wanted.disk)
            progress("domain")
            return await self._start(wanted, newest, progress, seed)
        except Permanent:
            if made:
                await asyncio.to_thread(self._disks.remove, wanted.vm)
            elif seeding is not None:
                await asyncio.to_thread(self._disks.remove_seed, wanted.vm)
            raise

    async def _seed_ahead(self, wanted: Wanted) -> Path | None:
        """Make the seed disk while the root disk is made. If that fails, it is tried once more just before the start.

        None if the disk has the data: they are fetched just before the start, because they may change until then.
        """
        if (medium := boot_image(wanted).seed) is not SeedMedium.HTTP:
            return None
        return await self._disks.make_seed(wanted.vm, wanted.seed_url, medium)

    async def _start(self, wanted: Wanted, newest: Newest, progress: Progress, seed: Path | None = None) -> Have:
        """Start the domain; its own disk exists. Disks that it no longer needs are deleted, missing ones are made.

        `seed`: the seed disk, if it was made for this boot.
        """
        kept = {disk.series: disk.number for disk in wanted.disks}
        earlier = [(kept.get(series, wanted.boots + 1), series) for series in SERIES]
        await asyncio.to_thread(self._remove_earlier, wanted.vm, earlier)
        overlays: list[Overlay] = []
        for disk in reversed(wanted.disks):
            if disk.series != OWN and not self._disks.has_disk(wanted.vm, disk.number, disk.series):
                await self._make(wanted, disk, newest, progress)
            overlays.insert(0, await self._under(wanted, disk, newest, progress))
        seed = seed or await self._disks.make_seed(wanted.vm, wanted.seed_url, boot_image(wanted).seed)
        boot = Boot(
            wanted=wanted,
            **overlays[0]._asdict(),
            console=str(self._disks.console(wanted.vm)),
            host_boot=self._host.boot_id,
            seed=str(seed),
            further=tuple(overlays[1:]),
        )
        self._last_request.pop(wanted.vm, None)
        try:
            async with self._start_slots.one():
                check_newest(wanted, newest)
                async with self._firewall.starting(wanted.vm, wanted.mac, wanted.project, wanted.seed_url):
                    return replace(await self._hypervisor.start(boot), files=True)
        except Refused as refusal:
            if refusal.invalid:
                raise Permanent("domain_invalid", refusal.detail) from refusal
            raise

    def _remove_earlier(self, vm: str, earlier: Sequence[tuple[int, Series]]) -> None:
        for number, series in earlier:
            self._disks.remove_earlier(vm, number, series)

    def _check_disk(self, wanted: Wanted) -> None:
        if not self._disks.has_disk(wanted.vm, wanted.disk):
            raise disk_missing(self._disks.disk(wanted.vm, wanted.disk))

    async def _make(self, wanted: Wanted, disk: VmDisk, newest: Newest, progress: Progress) -> bool:
        """Make a disk from its image. Returns whether it was made now."""
        progress("image")
        base = await while_wanted(self._images.ensure(image_of(disk), report_some(progress)), wanted, newest)
        progress("disk")
        return await self._disks.ensure(wanted.vm, base, wanted.disk_gib, disk.number, disk.series)

    async def _under(self, wanted: Wanted, disk: VmDisk, newest: Newest, progress: Progress) -> Overlay:
        """An existing disk with its backing image, in the format that it was made from. A missing image is fetched."""
        image = image_of(disk)
        base, form = await asyncio.to_thread(self._base, wanted.vm, disk, image)
        try:
            await while_wanted(self._images.ensure_under(image, form, report_some(progress)), wanted, newest)
        except Permanent as failure:
            if failure.code in UNFIT:
                raise base_missing(base, failure) from failure
            raise
        return Overlay(str(self._disks.disk(wanted.vm, disk.number, disk.series)), str(base), form)

    def _base(self, vm: str, disk: VmDisk, image: ImageSource) -> tuple[Path, Format]:
        """The backing image of a disk, and its format. Makes the folders of the VM. Raises OSError."""
        self._disks.make_folders(vm)
        return self._images.under(image, self._disks.base(vm, disk.number, disk.series))


def report_some(progress: Progress) -> Hear:
    """A callback for the progress of an image that reports only a part of it, because each report is an event."""
    doing: Stage = "arriving"
    gauge = Gauge(lambda done, total: progress(f"{WORDS[doing]}, {share(done, total)}"))

    def hear(stage: Stage, done: int, total: int | None) -> None:
        nonlocal doing
        doing = stage
        gauge(done, total)

    return hear


def patience(wanted: Wanted) -> float:
    """Maximum seconds to write a VM's memory to the disk, or to read it."""
    return 60.0 + wanted.memory_mib / SLOWEST_DISK


def image_of(disk: VmDisk) -> ImageSource:
    if disk.image is None:
        raise Permanent("image_missing", "the wanted document names no image")
    return disk.image


def boot_image(wanted: Wanted) -> ImageSource:
    return image_of(wanted.disks[0])


def disk_missing(disk: Path) -> Permanent:
    detail = (
        f"the VM's disk {disk} is missing on the node; restore it and start the VM, or rebuild the VM on a new disk"
    )
    return Permanent("disk_missing", detail)


def base_missing(base: Path, why: Permanent) -> Permanent:
    detail = f"the backing image of the VM's disk is missing on the node, and cannot be fetched again: {why.detail}; "
    return Permanent("base_missing", f"{detail}restore it at its source or at {base}, and start the VM, or rebuild it")


def check_newest(wanted: Wanted, newest: Newest) -> None:
    """Raises Superseded if a newer document has arrived, or the lease is in doubt."""
    if newest() != wanted:
        raise Superseded


async def while_wanted(work: Awaitable[T], wanted: Wanted, newest: Newest) -> T:
    """The result of `work`. Raises Superseded as soon as the desired state of the VM changes."""
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
