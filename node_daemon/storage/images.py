"""Base images: each is fetched once per node, verified, and only then renamed into place.

A qcow2 image is converted to a raw one, unless the node is configured to store images as they are. Both forms hold the
same disk. A disk that was made from one form needs that form as its backing file.
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
from node_daemon.storage.base_image import (
    BaseImage,
    ImageBase,
    inspect_file,
    inspect_part,
    mismatch,
    origin,
    raw_image,
    verify,
)
from node_daemon.storage.cache import Bases, Cache, touch
from node_daemon.storage.conversion import Full, convert, most_bytes
from node_daemon.storage.folder import let_pass
from node_daemon.storage.image_pieces import Platform, platform_copy
from node_daemon.storage.shared import Hear, Shared, Stage
from runtime import logs
from runtime.files.files import put_in_place
from runtime.files.private import passable
from runtime.images.disk_image import Format, Unusable
from runtime.images.disk_room import is_full, room
from runtime.images.download import SILENCE, Check, Encoded, Interrupted, NotFound, Part, Tell, TooLong, copy, download
from runtime.images.image_hosts import Denied, ImageHosts
from runtime.images.local_file import MAY_PASS, NotAllowed, open_file
from runtime.tasks.tasks import in_thread
from runtime.text.urls import is_url, shown

log = logs.get(__name__)

#: QEMU's user and that of qemu-img can read it, nobody can write it. Others do not get through the folder.
READ_ONLY = 0o444
ONLY_PUBLIC = ImageHosts()
RAW = "the image, converted to a raw disk, needs up to"

#: Problems of one provider of an image after which the next provider is tried.
TRY_NEXT = ("image_missing", "image_not_allowed", "image_encoded", "checksum_mismatch")

#: Leftovers of a conversion in a daemon that was killed, and of a download in earlier versions of the daemon.
_LEFTOVER = re.compile(SHA256 + r"\.(raw\.converting|(qcow2|raw)\.[0-9a-f]{32}\.part)")


class Provider(NamedTuple):
    """A place that may have an image. `receive` fetches the missing bytes of a part; `whence` names the place for
    people; `stage` is the progress that VMs report meanwhile.
    """

    receive: Callable[[ImageSource, Part, Check, Tell], Awaitable[bool]]
    whence: str
    stage: Stage


def ignore_progress(stage: Stage, done: int, total: int | None) -> None:
    """A callback that does nothing."""


class Images:
    """The image cache in one folder: files `<sha256>.<format>`, named by the digest of the source.

    A download is `<sha256>.<format>.part`, with a note next to it. It continues after a restart of the daemon. A
    conversion reads it and writes `<sha256>.raw.converting`.
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
        base: ImageBase = "raw",
        platform: Platform | None = None,
    ) -> None:
        """`sources`: folders in which the path of an image may be; `hosts`: hosts that a URL may name. `budget`,
        `bases`: as for `Cache`. `platform`: fetches images from the platform; None: do not.
        """
        self._folder = passable(folder)
        #: the group of QEMU's user, which may pass through the folder; None: all users may
        self._group: int | None = None
        self._sources = sources
        self._hosts = hosts
        self._cache = Cache(self._folder, budget, bases)
        self._silence = silence
        self._base = base
        self._platform = platform
        self._known: dict[str, BaseImage] = {}
        self._fetching: Shared[BaseImage] = Shared()
        #: one conversion at a time, so that none takes the free space that another one has counted on
        self._converting = asyncio.Lock()
        for leftover in folder.iterdir():
            if _LEFTOVER.fullmatch(leftover.name):
                leftover.unlink()

    def under(self, source: ImageSource, named: Path | None) -> tuple[Path, Format]:
        """The backing file of a disk that was made from the image, and its format.

        `named`: the backing file that the disk names. Only its file name counts, and it decides between the two
        formats. If it is neither, the result is the file that a new disk would get.
        """
        forms = self._forms(source)
        for form in forms:
            if named is not None and named.name == self._file(source, form).name:
                return self._file(source, form), form
        form = next((form for form in forms if self._file(source, form).exists()), forms[0])
        return self._file(source, form), form

    async def ensure(self, source: ImageSource, hear: Hear = ignore_progress) -> BaseImage:
        """The image, from the cache, the platform or its source. Concurrent callers for one image share one fetch.

        Raises Permanent (image_missing, image_not_allowed, checksum_mismatch, image_invalid, disk_full) or Temporary.
        """
        digest = source.sha256.lower()
        if (known := self._known.get(digest)) is not None and self._has(source, known.format):
            touch(known.path)
            return known
        return await self._fetching.do(digest, lambda hear_all: self._get(digest, source, hear_all), hear)

    async def ensure_under(self, source: ImageSource, form: Format, hear: Hear = ignore_progress) -> None:
        """Make sure that the image is in the cache in that format, for a disk that needs it; fetch it if it is missing.

        Raises the errors of `ensure`.
        """
        path, digest = self._file(source, form), source.sha256.lower()
        while not self._has(source, form):  # a running fetch that is joined may be for the other format
            await self._fetching.do(digest, lambda hear_all: self._fetch(source, form, hear_all), hear)
        touch(path)

    def use(self) -> ImageCache:
        """Number and size of the images in the cache."""
        return self._cache.use()

    def digests(self) -> set[str]:
        """The SHA-256 of all images in the cache, complete or not."""
        return {entry.digest for entry in self._cache.entries()}

    async def tidy(self, unwanted: Collection[str] = ()) -> None:
        """Remove the `unwanted` images that no disk needs, and images beyond the budget. Raises OSError."""
        await self._cache.tidy(self._fetching.__contains__, unwanted=unwanted)

    def allow(self, group: int | None) -> None:
        """Let only us and this group pass through the folder; None: all users, who cannot list it. Raises OSError."""
        self._group = group
        let_pass(passable(self._folder), group)

    def _file(self, source: ImageSource, form: Format) -> Path:
        return self._folder / f"{source.sha256.lower()}.{form}"

    def _has(self, source: ImageSource, form: Format) -> bool:
        """Whether the image is in the cache in that format. A truncated file counts as missing."""
        try:
            size = self._file(source, form).stat().st_size
        except OSError:
            return False
        return size >= (source.size_bytes if form == source.format else source.virtual_size_bytes)

    def _part(self, source: ImageSource) -> Part:
        path = self._file(source, source.format)
        return Part(path.with_name(f"{path.name}.part"))

    def _forms(self, source: ImageSource) -> tuple[Format, ...]:
        """The formats in which the image may be in the cache, the preferred one first."""
        if source.format == "raw":
            return ("raw",)
        return ("raw", "qcow2") if self._base == "raw" else ("qcow2", "raw")

    async def _get(self, digest: str, source: ImageSource, hear: Hear) -> BaseImage:
        form = next((form for form in self._forms(source) if self._has(source, form)), None)
        if form is None:
            image = await self._fetch(source, self._forms(source)[0], hear)
        else:
            path = self._file(source, form)
            touch(path)
            self._part(source).drop()  # leftover of a crash after the image was finished
            image = await inspect_file(path, form, path, thorough=False) if form == source.format else raw_image(path)
        self._known[digest] = image
        return image

    async def _fetch(self, source: ImageSource, form: Format, hear: Hear) -> BaseImage:
        """Fetch the bytes, verify and inspect them, convert them if needed, and only then rename
        the file into place.
        """
        self.allow(self._group)
        path, part = self._file(source, source.format), self._part(source)
        started = asyncio.get_running_loop().time()
        await self._cache.tidy(self._fetching.__contains__, room=source.size_bytes - part.held)
        before = part.size
        try:
            resumed = await self._fill(source, part, hear)
            image = await inspect_part(part, source.format, path)
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
        """Convert the part to a raw file. The part stays for a retry, unless a retry would fail in the same way."""
        new = path.with_name(f"{path.name}.converting")
        try:
            with part.path.open("rb", buffering=0) as file:
                most = await most_bytes(file, image.virtual_bytes)
                async with self._converting:
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
        """Free so many bytes. Raises Full; if removing all images would not be enough, none is removed."""
        if needed > (free := self._free()) + self._cache.use().bytes:
            raise Full(needed, free)
        await self._cache.tidy(self._fetching.__contains__, room=needed)
        if needed > (free := self._free()):
            raise Full(needed, free)

    async def _fill(self, source: ImageSource, part: Part, hear: Hear) -> bool:
        """Fetch the missing bytes of the part from the first provider that has them, and verify them.

        Returns whether some bytes had arrived before. Raises Permanent, Temporary, OSError.
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
        for receive, whence, stage in self._providers(source):
            try:
                resumed = await receive(source, part, check, partial(hear, stage))
                await verify(source, part, resumed, whence)
            except Permanent as error:
                if error.code not in TRY_NEXT:
                    raise
                refusals.append(error)
                log.warning("cannot get the image", image=source.image, whence=whence, error=error.detail)
            else:
                return resumed
        if is_url(source.source):
            refusals.reverse()  # the problem of its own source comes first
        raise Permanent(refusals[0].code, "; ".join(refusal.detail for refusal in refusals))

    def _providers(self, source: ImageSource) -> list[Provider]:
        """The providers of an image in the order of trying: a local file first, a URL last."""
        url = is_url(source.source)
        from_source = self._download if url else self._copy
        if self._platform is None or source.fetch is Fetch.SOURCE:
            return [Provider(from_source, origin(source), "arriving")]
        platform = Provider(self._platform.receive, platform_copy(source), "arriving")
        if url:
            return [platform, Provider(from_source, origin(source), "from source")]
        return [Provider(from_source, origin(source), "arriving"), platform]

    async def _download(self, source: ImageSource, part: Part, check: Check, tell: Tell) -> bool:
        """Download the image from its URL. Returns whether some bytes had arrived before."""
        try:
            resumed = await download(
                source.source,
                part,
                hosts=self._hosts,
                tell=tell,
                check=check,
                takes=partial(self._size_limit, part),
                most=source.size_bytes,
                silence=self._silence,
            )
        except Denied as error:
            raise Permanent("image_not_allowed", f"the source {shown(source.source)}: {error}") from error
        except NotFound as error:
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
        """Copy the whole image from its path on this host."""
        try:
            file = await asyncio.to_thread(open_file, source.source, self._sources)
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

    def _size_limit(self, part: Part, least: int, best: int) -> int:
        """The maximum size of a part whose length is unknown, between `least` and `best` bytes.

        If there is no space for `least`, the part is deleted. Raises Permanent.
        """
        try:
            self._room_for(least - part.held)
        except Permanent:
            part.drop()
            raise
        return max(least, min(best, part.held + self._free()))

    def _room_for(self, needed: int) -> None:
        """Raises Permanent (disk_full) if so many more bytes do not fit."""
        if needed > self._free():
            raise no_room(needed, shutil.disk_usage(self._folder).free)

    def _of_os_error(self, error: OSError, source: ImageSource, part: Part) -> Exception:
        """The error of a failed write. If the disk is full, the part is deleted to free its space."""
        if not is_full(error):
            return of_os_error(error)
        needed = source.size_bytes - part.size
        free = self._free()
        part.drop()
        return no_room(max(needed, 1), free)


def no_room(needed: int, free: int, what: str = "the image needs") -> Permanent:
    detail = f"{what} {needed} more bytes on the node's disk, which has {free} bytes free; free some space there"
    return Permanent("disk_full", detail)
