"""Reads a registered image once, completely, and verifies it, before anybody may use it.

A file of this host is read in its place. An image with a URL is first downloaded to a folder of ours, because QEMU's
tools need a file. A partial download survives the end of this process. It is removed once there is a verdict, unless it
is stored for nodes (`store.py`).
"""

import asyncio
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from domain.contract import Fetch
from domain.image import Image
from handlers.images.store import ImageStore
from runtime import logs
from runtime.files.digests import digests
from runtime.files.lock import turn
from runtime.images.disk_image import HEAD, MOST_BYTES, Format, Shape, Unusable, bootable, look
from runtime.images.disk_room import is_full, room
from runtime.images.download import PACE, Encoded, Interrupted, NotFound, Part, Tell, TooLong, Verdict, copy, download
from runtime.images.image_hosts import Denied, ImageHosts
from runtime.images.inspection import inspect
from runtime.images.local_file import MAY_PASS, NotAllowed, open_file
from runtime.images.qemu_img import readable
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import in_thread
from runtime.text.urls import is_url, shown

log = logs.get(__name__)

#: Number of consecutive tries with too little progress after which a source is unreachable; the pauses between them.
TRIES, RETRY = 4, Backoff(first=1.0, last=8.0, jitter=0.0)
#: The part of the disk space that the downloads of one project may use, if it has more than one.
SHARE = 0.5


class BadImage(Verdict):
    """The image is not valid. `field`: the field of the registration that is wrong."""

    def __init__(self, code: str, detail: str, field: str = "source") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field


@dataclass(frozen=True)
class Facts:
    """The verified facts about an image."""

    format: Format
    size_bytes: int
    virtual_size_bytes: int
    sha256: str


class Reader:
    """Reads images. `folder`: for downloads; `sources`: the folders in which a file may be a source; `hosts`: the hosts
    from which may be downloaded; `store`: stores the valid images, if given.
    """

    def __init__(
        self, folder: Path, sources: Sequence[Path], hosts: ImageHosts, store: ImageStore | None = None
    ) -> None:
        self._store = store
        self._folder = folder
        self._sources = sources
        self._hosts = hosts
        #: by registration: the project, and the total bytes of the download
        self._flight: dict[str, tuple[str | None, int]] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def facts(self, found: Image, tell: Tell) -> Facts:
        """Read and verify an image. Raises BadImage; OSError for an error of this host, which may end by itself."""
        try:
            if not is_url(found.source):
                return await self._of_file(found, tell)
            return await self._of_url(found, tell)
        finally:
            self._flight.pop(found.registered_by, None)

    def sweep(self, wanted: Collection[str]) -> None:
        """Remove the files of registrations that are not in `wanted`."""
        try:
            for path in self._folder.iterdir():
                if path.name.split(".", 1)[0] not in wanted:
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("files of earlier downloads cannot be removed", error=str(error))

    def _part(self, found: Image) -> Part:
        return Part(self._folder / f"{found.registered_by}.part")

    async def _of_url(self, found: Image, tell: Tell) -> Facts:
        async with turn(self._folder / f"{found.registered_by}.lock"):
            part = self._part(found)
            for last in (False, True):
                resumed = await self._download(found, part, tell)
                try:
                    with part.path.open("rb", buffering=0) as file:
                        facts = await verify(file, found)
                        await self._keep(file, found, facts, ours=True)
                        return facts
                except BadImage as error:
                    part.drop()
                    if last or not resumed or error.code != "checksum_mismatch":
                        raise
                    log.info("digest of a resumed download is wrong; downloading again", image=found.id)
        raise AssertionError("the last try returns or raises")

    async def _of_file(self, found: Image, tell: Tell) -> Facts:
        """The facts about a file of this host; about a copy of it, if the user of QEMU's tools cannot read it."""
        with self._file(found.source) as file:
            facts = await verify(file, found) if readable(file) else await self._of_copy(file, found, tell)
            await self._keep(file, found, facts, ours=False)
            return facts

    async def _of_copy(self, file: BinaryIO, found: Image, tell: Tell) -> Facts:
        async with turn(self._folder / f"{found.registered_by}.lock"):
            part, size = self._part(found), os.fstat(file.fileno()).st_size
            self._check(found, part, size)
            with full_disk_rejected(part):
                await copy(file.fileno(), part, size, tell)
            with part.path.open("rb", buffering=0) as copied:
                return await verify(copied, found)

    async def _keep(self, file: BinaryIO, found: Image, facts: Facts, *, ours: bool) -> None:
        """Store it for nodes, before it becomes available."""
        if self._store is not None and found.fetch is Fetch.PLATFORM:
            await in_thread(self._store.keep, file, facts.sha256, ours)

    @contextmanager
    def _file(self, source: str) -> Iterator[BinaryIO]:
        try:
            file = open_file(source, self._sources)
        except NotAllowed as error:
            raise BadImage("image_not_allowed", str(error)) from error
        except OSError as error:
            if error.errno in MAY_PASS:
                raise
            raise BadImage("image_missing", f"{source}: {error.strerror}") from error
        with file:
            yield file

    def _check(self, found: Image, part: Part, total: int | None) -> None:
        """Raises BadImage if there is no room for an image of `total` bytes."""
        needed, project = (total or 0) - part.held, found.project
        if self._store is not None and total is not None and total <= MOST_BYTES:
            self._store.make_room(needed)
        free = room(self._folder)
        if total is not None and total > MOST_BYTES:
            detail = f"the source {shown(found.source)} has {total} bytes; an image may have at most {MOST_BYTES}"
            raise BadImage("image_invalid", detail)
        if needed > free:
            detail = f"the verification needs {needed} bytes more, and {free} are free on the handlers' host"
            raise BadImage("disk_full", detail)
        others = [flight for key, flight in self._flight.items() if key != found.registered_by]
        theirs = sum(size for owner, size in others if owner == project)
        space = free + part.held + sum(size for _, size in others)
        if project is not None and theirs and theirs + (total or 0) > space * SHARE:
            detail = (
                f"other images of project {project}, with {theirs} bytes, are being downloaded; register it again "
                "when they are done"
            )
            raise BadImage("too_much_in_flight", detail, "project")
        self._flight[found.registered_by] = (project, total or 0)

    def _take(self, found: Image, part: Part, least: int, best: int) -> int:
        """The maximum size of a download of unknown length. Raises BadImage, and removes it, if that is too small."""
        size = max(least, min(best, part.held + room(self._folder)))
        try:
            self._check(found, part, size)
        except BadImage:
            part.drop()
            raise
        return size

    async def _download(self, found: Image, part: Part, tell: Tell) -> bool:
        """Download all bytes, in any number of tries that make progress. Returns whether it was resumed."""
        failures, resumed, clock = 0, False, asyncio.get_running_loop()
        began = since = clock.time()
        check, takes = partial(self._check, found, part), partial(self._take, found, part)
        while True:
            before = part.size
            try:
                with full_disk_rejected(part):
                    most = part.held + room(self._folder)
                    done = await download(
                        found.source, part, hosts=self._hosts, tell=tell, check=check, takes=takes, most=most
                    )
                    return done or resumed
            except Denied as error:
                raise BadImage("image_not_allowed", f"the source {shown(found.source)}: {error}") from error
            except NotFound as error:
                raise BadImage("image_missing", str(error)) from error
            except Encoded as error:
                raise BadImage("image_encoded", str(error)) from error
            except TooLong as error:
                part.drop()
                raise BadImage("disk_full", f"{error}, which is all the space on the handlers' host") from error
            except Interrupted as error:
                now = clock.time()
                enough = PACE.least * (now - since)  # the minimum rate holds for all tries together
                failures = 1 if part.size - before > enough else failures + 1
                since = now
                resumed = True
                log.info("download interrupted", image=found.id, bytes=part.size, failures=failures, error=str(error))
                if failures >= TRIES:
                    raise BadImage("image_unreachable", f"{error}; tried {failures} times") from error
                if now - began > PACE.whole:
                    detail = f"{error}; the download took more than {PACE.whole:.0f} s"
                    raise BadImage("image_unreachable", detail) from error
                await asyncio.sleep(RETRY.after(failures))


@contextmanager
def full_disk_rejected(part: Part) -> Iterator[None]:
    """If the disk is full: remove the partial download, and raise BadImage. Other OSErrors are raised unchanged."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        part.drop()
        detail = "the disk of the handlers' host is full; free space on it, and register the image again"
        raise BadImage("disk_full", detail) from error


async def verify(file: BinaryIO, found: Image) -> Facts:
    """Compare the digests, then inspect the image. Raises BadImage."""
    expected: Mapping[str, str | None] = {"sha256": found.sha256, "sha512": found.sha512}
    made = await digests(file, ["sha256", *(["sha512"] if found.sha512 else [])])
    for name, digest in expected.items():
        if digest is not None and made[name] != digest:
            raise BadImage("checksum_mismatch", f"the bytes at {shown(found.source)} have {name} {made[name]}", name)
    try:
        shape = await shape_of(file)
    except Unusable as error:
        raise BadImage("image_invalid", str(error)) from error
    except TimeoutError as error:
        raise BadImage("image_invalid", "qemu-img did not finish its check of this image in time") from error
    return Facts(shape.format, shape.size_bytes, shape.virtual_bytes, made["sha256"])


async def shape_of(file: BinaryIO) -> Shape:
    """The format and sizes of the image. If QEMU's tools are missing, only its header is checked. Raises Unusable."""
    head = os.pread(file.fileno(), HEAD, 0)
    try:
        shape = await inspect(file)
    except FileNotFoundError:
        log.warning("qemu-img is missing; only the header of an image is checked")
        shape = look(head, os.fstat(file.fileno()).st_size)
    if shape.format == "raw" and not bootable(head):
        iso = head[0x8001:0x8006] == b"CD001"
        hint = "; the ISO of an installer is not a disk image: use the distribution's cloud image" if iso else ""
        raise Unusable(f"neither a qcow2 image nor a raw disk with a boot sector{hint}")
    return shape
