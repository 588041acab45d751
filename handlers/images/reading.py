"""Reading an image that was registered, once and from end to end, before anybody may use it.

A file of this host is read where it is. What is behind a URL comes to a folder of ours first, since QEMU's tools have
to see it too; what has arrived outlives this process, and is gone once the verdict has fallen, but for what is kept for
nodes (`handlers/images/store.py`).
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
from runtime.images.download import PACE, Encoded, Gone, Interrupted, Part, Tell, TooLong, Verdict, copy, download
from runtime.images.image_hosts import Denied, ImageHosts
from runtime.images.inspection import inspect
from runtime.images.local_file import MAY_PASS, NotAllowed, opened
from runtime.images.qemu_img import readable
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import in_thread
from runtime.text.urls import is_url, shown

log = logs.get(__name__)

#: Tries in a row that bring too little, before a source counts as unreachable, and the seconds between them.
TRIES, RETRY = 4, Backoff(first=1.0, last=8.0, jitter=0.0)
#: The part of the room that one project may have in flight, where it has more than one image there.
SHARE = 0.5


class BadImage(Verdict):
    """The image is not what it should be; says which field is at fault."""

    def __init__(self, code: str, detail: str, field: str = "source") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field


@dataclass(frozen=True)
class Facts:
    """What reading an image told."""

    format: Format
    size_bytes: int
    virtual_size_bytes: int
    sha256: str


class Reader:
    """`folder` is where images are kept while they are judged; `sources` where files may be named, `hosts` what may be
    asked over HTTP. What is good goes to the `store`, if there is one.
    """

    def __init__(
        self, folder: Path, sources: Sequence[Path], hosts: ImageHosts, store: ImageStore | None = None
    ) -> None:
        self._store = store
        self._folder = folder
        self._sources = sources
        self._hosts = hosts
        #: by registration: the project, and the bytes of what is in flight
        self._flight: dict[str, tuple[str | None, int]] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def facts(self, found: Image, tell: Tell) -> Facts:
        """All there is to know of an image. Raises BadImage; OSError, which may pass."""
        try:
            if not is_url(found.source):
                return await self._of_file(found, tell)
            return await self._of_url(found, tell)
        finally:
            self._flight.pop(found.registered_by, None)

    def sweep(self, wanted: Collection[str]) -> None:
        """Remove what is left of registrations that nobody waits for any more."""
        try:
            for path in self._folder.iterdir():
                if path.name.split(".", 1)[0] not in wanted:
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("leftovers of imports cannot be removed", error=str(error))

    def _part(self, found: Image) -> Part:
        return Part(self._folder / f"{found.registered_by}.part")

    async def _of_url(self, found: Image, tell: Tell) -> Facts:
        async with turn(self._folder / f"{found.registered_by}.lock"):
            part = self._part(found)
            for last in (False, True):
                resumed = await self._fetched(found, part, tell)
                try:
                    with part.path.open("rb", buffering=0) as file:
                        facts = await judged(file, found)
                        await self._keep(file, found, facts, ours=True)
                        return facts
                except BadImage as error:
                    part.drop()
                    if last or not resumed or error.code != "checksum_mismatch":
                        raise
                    log.info("what was resumed does not fit; read anew", image=found.id)
        raise AssertionError("the last try returns or raises")

    async def _of_file(self, found: Image, tell: Tell) -> Facts:
        """Of a file of this host, where it is; of a copy, where the user that QEMU's tools run as cannot read it."""
        with self._file(found.source) as file:
            facts = await judged(file, found) if readable(file) else await self._of_copy(file, found, tell)
            await self._keep(file, found, facts, ours=False)
            return facts

    async def _of_copy(self, file: BinaryIO, found: Image, tell: Tell) -> Facts:
        async with turn(self._folder / f"{found.registered_by}.lock"):
            part, size = self._part(found), os.fstat(file.fileno()).st_size
            self._check(found, part, size)
            with full_is_a_verdict(part):
                await copy(file.fileno(), part, size, tell)
            with part.path.open("rb", buffering=0) as copied:
                return await judged(copied, found)

    async def _keep(self, file: BinaryIO, found: Image, facts: Facts, *, ours: bool) -> None:
        """For nodes, before anybody hears that it is available."""
        if self._store is not None and found.fetch is Fetch.PLATFORM:
            await in_thread(self._store.keep, file, facts.sha256, ours)

    @contextmanager
    def _file(self, source: str) -> Iterator[BinaryIO]:
        try:
            file = opened(source, self._sources)
        except NotAllowed as error:
            raise BadImage("image_not_allowed", str(error)) from error
        except OSError as error:
            if error.errno in MAY_PASS:
                raise
            raise BadImage("image_missing", f"{source}: {error.strerror}") from error
        with file:
            yield file

    def _check(self, found: Image, part: Part, total: int | None) -> None:
        """Raises BadImage where there is no room for an image of so many bytes."""
        needed, project = (total or 0) - part.held, found.project
        if self._store is not None and total is not None and total <= MOST_BYTES:
            self._store.make_room(needed)
        free = room(self._folder)
        if total is not None and total > MOST_BYTES:
            raise BadImage("image_invalid", f"the source {shown(found.source)} has {total} bytes: no disk is as large")
        if needed > free:
            raise BadImage("disk_full", f"judging the image needs {needed} bytes more, and {free} are free here")
        others = [flight for key, flight in self._flight.items() if key != found.registered_by]
        theirs = sum(size for whose, size in others if whose == project)
        whole = free + part.held + sum(size for _, size in others)
        if project is not None and theirs and theirs + (total or 0) > whole * SHARE:
            detail = (
                f"project {project} has {theirs} bytes of other images in flight; register it again when they are done"
            )
            raise BadImage("too_much_in_flight", detail, "project")
        self._flight[found.registered_by] = (project, total or 0)

    def _take(self, found: Image, part: Part, least: int, best: int) -> int:
        """How large a part of unknown length may become; it goes where that is too small. Raises BadImage."""
        size = max(least, min(best, part.held + room(self._folder)))
        try:
            self._check(found, part, size)
        except BadImage:
            part.drop()
            raise
        return size

    async def _fetched(self, found: Image, part: Part, tell: Tell) -> bool:
        """Bring the part to its full length, in as many tries as it takes while bytes come. Whether it was resumed."""
        failures, resumed, clock = 0, False, asyncio.get_running_loop()
        began = since = clock.time()
        check, takes = partial(self._check, found, part), partial(self._take, found, part)
        while True:
            before = part.size
            try:
                with full_is_a_verdict(part):
                    most = part.held + room(self._folder)
                    done = await download(
                        found.source, part, hosts=self._hosts, tell=tell, check=check, takes=takes, most=most
                    )
                    return done or resumed
            except Denied as error:
                raise BadImage("image_not_allowed", f"the source {shown(found.source)}: {error}") from error
            except Gone as error:
                raise BadImage("image_missing", str(error)) from error
            except Encoded as error:
                raise BadImage("image_encoded", str(error)) from error
            except TooLong as error:
                part.drop()
                raise BadImage("disk_full", f"{error}, which is all the room there is here") from error
            except Interrupted as error:
                now = clock.time()
                enough = PACE.least * (now - since)  # hanging up again and again makes nothing faster
                failures = 1 if part.size - before > enough else failures + 1
                since = now
                resumed = True
                log.info(
                    "image source breaks off", image=found.id, bytes=part.size, failures=failures, error=str(error)
                )
                if failures >= TRIES:
                    raise BadImage("image_unreachable", f"{error}; tried {failures} times") from error
                if now - began > PACE.whole:
                    detail = f"{error}; it takes longer than {PACE.whole:.0f} s"
                    raise BadImage("image_unreachable", detail) from error
                await asyncio.sleep(RETRY.after(failures))


@contextmanager
def full_is_a_verdict(part: Part) -> Iterator[None]:
    """A disk that is full is not kept full by half an image. Raises BadImage, and other OSErrors as they are."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        part.drop()
        raise BadImage("disk_full", "the disk here is full: the image cannot be judged") from error


async def judged(file: BinaryIO, found: Image) -> Facts:
    """Digests first: what is not even the promised bytes is not worth a look. Raises BadImage."""
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
        raise BadImage("image_invalid", "qemu-img does not come to an end with this image") from error
    return Facts(shape.format, shape.size_bytes, shape.virtual_bytes, made["sha256"])


async def shape_of(file: BinaryIO) -> Shape:
    """What the image is. Where QEMU's tools are missing its header alone is judged. Raises Unusable."""
    head = os.pread(file.fileno(), HEAD, 0)
    try:
        shape = await inspect(file)
    except FileNotFoundError:
        log.warning("qemu-img is missing here: an image is judged by its header alone")
        shape = look(head, os.fstat(file.fileno()).st_size)
    if shape.format == "raw" and not bootable(head):
        iso = head[0x8001:0x8006] == b"CD001"
        hint = ": an ISO of an installer is no disk to boot from; take the cloud image" if iso else ""
        raise Unusable(f"neither a qcow2 image nor a raw disk with a boot sector{hint}")
    return shape
