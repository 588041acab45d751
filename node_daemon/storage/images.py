"""Base images: fetched once per node, verified before anybody sees them, never half in place.

A qcow2 image becomes a raw one on the way, unless the node is set to keep images as they come. Both forms hold the same
disk; whoever made a disk from one of them goes on with that one.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from domain.contract import Fetch, ImageCache, ImageSource
from domain.patterns import SHA256
from node_daemon.failure import Permanent, Temporary, of_os_error
from node_daemon.storage.base_image import BaseImage, Kept, converted, inspected, judged, mismatch, origin, verify
from node_daemon.storage.cache import Bases, Cache, touch
from node_daemon.storage.conversion import Full, convert, most_bytes
from node_daemon.storage.folder import new_folder
from node_daemon.storage.image_pieces import Platform, kept
from node_daemon.storage.shared import Hear, Shared, Stage
from runtime import logs
from runtime.files.files import put_in_place
from runtime.images.disk_image import Format, Unusable
from runtime.images.disk_room import is_full, room
from runtime.images.download import SILENCE, Check, Encoded, Gone, Interrupted, Part, Tell, TooLong, copy, download
from runtime.images.image_hosts import Denied, ImageHosts
from runtime.images.local_file import MAY_PASS, NotAllowed, opened
from runtime.tasks.tasks import in_thread
from runtime.text.urls import is_url, shown

log = logs.get(__name__)

#: For all, QEMU's user among them; for writing to nobody.
READ_ONLY = 0o444
ONLY_PUBLIC = ImageHosts()
RAW = "the image, converted to a raw disk, needs up to"

#: What is wrong with one who was asked for an image, and need not be with the next one.
ELSEWHERE = ("image_missing", "image_not_allowed", "image_encoded", "checksum_mismatch")

#: What is left of a conversion when the daemon is killed, and was left of a download by an earlier version of it.
_LEFT = re.compile(SHA256 + r"\.(raw\.converting|(qcow2|raw)\.[0-9a-f]{32}\.part)")


class Way(NamedTuple):
    """One who may have an image: how to get it, what that is called, and what a VM is preparing meanwhile."""

    receive: Callable[[ImageSource, Part, Check, Tell], Awaitable[bool]]
    whence: str
    stage: Stage


def unheard(stage: Stage, done: int, total: int | None) -> None:
    """Nobody wants to know how far it is."""


class Images:
    """The cache in one folder: `<sha256>.<format>`; while they arrive, `<sha256>.<format>.part` and its note.

    What has arrived of a download outlives the process, and the next one goes on from there. While it is converted it
    stays, and what is made of it is `<sha256>.raw.converting`. The digest is always that of the source.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sequence[Path],
        *,
        hosts: ImageHosts = ONLY_PUBLIC,
        budget: int = 0,
        bases: Bases = set,
        silence: float = SILENCE,
        kept: Kept = "raw",
        platform: Platform | None = None,
    ) -> None:
        """`sources`: the folders below which a path may be an image's source; `hosts`: what URLs may name. `budget`,
        `bases`: as `Cache` says. `platform`: who else may have an image.
        """
        self._folder = new_folder(folder)
        self._sources = sources
        self._hosts = hosts
        self._cache = Cache(self._folder, budget, bases)
        self._silence = silence
        self._kept = kept
        self._platform = platform
        self._known: dict[str, BaseImage] = {}
        self._fetching: Shared[BaseImage] = Shared()
        #: one conversion at a time: each may count on the room that it found
        self._turn = asyncio.Lock()
        for leftover in folder.iterdir():
            if _LEFT.fullmatch(leftover.name):
                leftover.unlink()

    def under(self, source: ImageSource, named: Path | None) -> tuple[Path, Format]:
        """The file under a disk that was made from the image, and its format.

        The disk says which of the two it is by the name of its base, which counts for nothing else. For one that names
        neither, it is the one that a new disk would get.
        """
        forms = self._forms(source)
        for form in forms:
            if named is not None and named.name == self._file(source, form).name:
                return self._file(source, form), form
        form = next((form for form in forms if self._file(source, form).exists()), forms[0])
        return self._file(source, form), form

    async def ensure(self, source: ImageSource, hear: Hear = unheard) -> BaseImage:
        """The image, from the cache, the platform or its source. Whoever asks for the same image shares one fetch.

        Raises Permanent (image_missing, image_not_allowed, checksum_mismatch, image_invalid, disk_full) or Temporary.
        """
        digest = source.sha256.lower()
        if (known := self._known.get(digest)) is not None and self._has(source, known.format):
            touch(known.path)
            return known
        return await self._fetching.do(digest, lambda heard: self._get(digest, source, heard), hear)

    async def ensure_under(self, source: ImageSource, form: Format, hear: Hear = unheard) -> None:
        """Have the file under a disk that was made from the image in that form; it is fetched again where it is gone.

        Raises as `ensure` does.
        """
        path, digest = self._file(source, form), source.sha256.lower()
        while not self._has(source, form):  # one fetch of an image at a time, and another one may be for its other form
            await self._fetching.do(digest, lambda heard: self._fetch(source, form, heard), hear)
        touch(path)

    def use(self) -> ImageCache:
        """How much is kept."""
        return self._cache.use()

    def digests(self) -> set[str]:
        """The sha256 of all that is kept, and of what has arrived of others."""
        return {entry.digest for entry in self._cache.entries()}

    async def tidy(self, unwanted: Collection[str] = ()) -> None:
        """Remove what the catalogue does not want any more and no disk needs, and what is beyond the budget."""
        await self._cache.tidy(self._fetching.__contains__, unwanted=unwanted)

    def _file(self, source: ImageSource, form: Format) -> Path:
        return self._folder / f"{source.sha256.lower()}.{form}"

    def _has(self, source: ImageSource, form: Format) -> bool:
        """Whether the image is here in that form. What was cut is not: it is fetched again like what is gone."""
        try:
            size = self._file(source, form).stat().st_size
        except OSError:
            return False
        return size >= (source.size_bytes if form == source.format else source.virtual_size_bytes)

    def _part(self, source: ImageSource) -> Part:
        path = self._file(source, source.format)
        return Part(path.with_name(f"{path.name}.part"))

    def _forms(self, source: ImageSource) -> tuple[Format, ...]:
        """The formats in which the image may be here, the one to be had first."""
        if source.format == "raw":
            return ("raw",)
        return ("raw", "qcow2") if self._kept == "raw" else ("qcow2", "raw")

    async def _get(self, digest: str, source: ImageSource, hear: Hear) -> BaseImage:
        form = next((form for form in self._forms(source) if self._has(source, form)), None)
        if form is None:
            image = await self._fetch(source, self._forms(source)[0], hear)
        else:
            path = self._file(source, form)
            touch(path)
            self._part(source).drop()  # what a crash left that came when all was done
            image = await inspected(path, form, path, thorough=False) if form == source.format else converted(path)
        self._known[digest] = image
        return image

    async def _fetch(self, source: ImageSource, form: Format, hear: Hear) -> BaseImage:
        """Get the bytes, judge them, and only then give them, or what they are converted to, a name others look for."""
        new_folder(self._folder)
        path, part = self._file(source, source.format), self._part(source)
        started = asyncio.get_running_loop().time()
        await self._cache.tidy(self._fetching.__contains__, room=source.size_bytes - part.held)
        before = part.size
        try:
            resumed = await self._bring(source, part, hear)
            image = await judged(part, source.format, path)
            if image.format != form:
                image = await self._convert(part, image, self._file(source, "raw"), partial(hear, "converting"))
            else:
                await in_thread(put_in_place, part.path, path, READ_ONLY)
            part.drop()
        except OSError as error:
            raise self._of_os_error(error, source, part) from error
        log.info(
            "image fetched",
            image=source.image,
            sha256=source.sha256,
            format=image.format,
            seconds=round(asyncio.get_running_loop().time() - started, 3),
            resumed=before if resumed else 0,
        )
        return image

    async def _convert(self, part: Part, image: BaseImage, path: Path, tell: Tell) -> BaseImage:
        """The same disk as a raw file. What arrived is kept for the next try, unless that would end no better."""
        new = path.with_name(f"{path.name}.converting")
        try:
            with part.path.open("rb", buffering=0) as file:
                most = await most_bytes(file, image.virtual_bytes)
                async with self._turn:
                    started = asyncio.get_running_loop().time()
                    await self._make_room(most)
                    await convert(file, image.virtual_bytes, new, most, tell)
                    await in_thread(put_in_place, new, path, READ_ONLY)
        except Full as error:
            part.drop()
            raise no_room(error.needed, error.free, RAW) from error
        except Unusable as error:
            part.drop()
            raise Permanent("image_invalid", str(error)) from error
        except TimeoutError as error:
            raise Temporary("qemu-img takes too long to convert the image") from error
        seconds = round(asyncio.get_running_loop().time() - started, 3)
        log.info("image converted", image=path.name, seconds=seconds, bytes=path.stat().st_blocks * 512, most=most)
        return replace(image, path=path, format="raw")

    async def _make_room(self, needed: int) -> None:
        """For so many bytes more. Raises Full; nothing is removed where all that could be would not do."""
        if needed > (free := self._free()) + self._cache.use().bytes:
            raise Full(needed, free)
        await self._cache.tidy(self._fetching.__contains__, room=needed)
        if needed > (free := self._free()):
            raise Full(needed, free)

    async def _bring(self, source: ImageSource, part: Part, hear: Hear) -> bool:
        """Bring the right bytes to the part, from the first that has them. Whether some had arrived before.

        A file of this host is asked first, since nothing has to travel; a URL last.
        """

        def check(total: int | None) -> None:
            if total is not None and total != source.size_bytes:
                part.drop()
                raise mismatch(origin(source), f"it has {total} bytes, expected {source.size_bytes}")
            self._room_for(source.size_bytes - part.held)

        if part.size == source.size_bytes > 0:
            await verify(source, part, True, "the image")
            return True
        refusals: list[Permanent] = []
        for receive, whence, stage in self._ways(source):
            try:
                resumed = await receive(source, part, check, partial(hear, stage))
                await verify(source, part, resumed, whence)
            except Permanent as error:
                if error.code not in ELSEWHERE:
                    raise
                refusals.append(error)
                log.warning("image not to be had", image=source.image, whence=whence, error=error.detail)
            else:
                return resumed
        if is_url(source.source):
            refusals.reverse()  # what its own source says comes first
        raise Permanent(refusals[0].code, "; ".join(refusal.detail for refusal in refusals))

    def _ways(self, source: ImageSource) -> list[Way]:
        """Who is asked for it, one after the other."""
        url = is_url(source.source)
        of_its_own = self._download if url else self._copy
        if self._platform is None or source.fetch is Fetch.SOURCE:
            return [Way(of_its_own, origin(source), "arriving")]
        platform = Way(self._platform.receive, kept(source), "arriving")
        if url:
            return [platform, Way(of_its_own, origin(source), "from source")]
        return [Way(of_its_own, origin(source), "arriving"), platform]

    async def _download(self, source: ImageSource, part: Part, check: Check, tell: Tell) -> bool:
        """From its URL. Whether some had arrived before."""
        try:
            resumed = await download(
                source.source,
                part,
                hosts=self._hosts,
                tell=tell,
                check=check,
                takes=partial(self._take, part),
                most=source.size_bytes,
                silence=self._silence,
            )
        except Denied as error:
            raise Permanent("image_not_allowed", f"the source {shown(source.source)}: {error}") from error
        except Gone as error:
            raise Permanent("image_missing", str(error)) from error
        except Encoded as error:
            raise Permanent("image_encoded", str(error)) from error
        except TooLong as error:
            part.drop()
            raise mismatch(origin(source), str(error)) from error
        except Interrupted as error:
            raise Temporary(str(error)) from error
        if part.size < source.size_bytes:
            raise Temporary(f"the source {shown(source.source)} ended after {part.size} of {source.size_bytes} bytes")
        return resumed

    async def _copy(self, source: ImageSource, part: Part, check: Check, tell: Tell) -> bool:
        """From its path, always all of it."""
        try:
            file = await asyncio.to_thread(opened, source.source, self._sources)
        except NotAllowed as error:
            raise Permanent("image_not_allowed", str(error)) from error
        except OSError as error:
            if error.errno in MAY_PASS:
                raise Temporary(f"{source.source}: {error.strerror} on this node") from error
            raise Permanent("image_missing", f"{source.source}: {error.strerror} on this node") from error
        with file:
            size = os.fstat(file.fileno()).st_size
            part.drop()
            check(size)
            await copy(file.fileno(), part, size, tell)
        return False

    def _free(self) -> int:
        return room(self._folder)

    def _take(self, part: Part, least: int, best: int) -> int:
        """How large a part of unknown length may become; it goes where that is too small. Raises Permanent."""
        try:
            self._room_for(least - part.held)
        except Permanent:
            part.drop()
            raise
        return max(least, min(best, part.held + self._free()))

    def _room_for(self, needed: int) -> None:
        """Raises Permanent (disk_full) when so many bytes more do not fit."""
        if needed > self._free():
            raise no_room(needed, shutil.disk_usage(self._folder).free)

    def _of_os_error(self, error: OSError, source: ImageSource, part: Part) -> Exception:
        """A disk that is full is not kept full by half an image."""
        if not is_full(error):
            return of_os_error(error)
        needed = source.size_bytes - part.size
        free = self._free()
        part.drop()
        return no_room(max(needed, 1), free)


def no_room(needed: int, free: int, what: str = "the image needs") -> Permanent:
    return Permanent("disk_full", f"{what} {needed} bytes more on the node's disk, which has {free} bytes free")
