"""Images: what was registered is read once from end to end before anybody may use it.

Right bytes (sha256), a disk image by its own header, and no file hidden behind it. What is wrong is said of the field
that is wrong. Nodes check their own copies again.
"""

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import httpx

from domain import image
from domain.image import AcceptImage, Image, ImageCommands, ImagePhase, RejectImage
from eventstore.envelope import Ref
from eventstore.store import Conflict, EventStore, Unavailable
from handlers.apply import apply, manager, now
from handlers.world import World
from runtime import logs, subjects

log = logs.get(__name__)

CHUNK = 1024 * 1024
QCOW2 = b"QFI\xfb"
PATIENCE = httpx.Timeout(10.0, read=60.0)
ATTEMPTS = 3


class BadImage(Exception):
    """The image is not what it should be; says which field is at fault."""

    def __init__(self, code: str, detail: str, field: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field


@dataclass(frozen=True)
class Facts:
    """What reading an image told."""

    format: Literal["qcow2", "raw"]
    size_bytes: int
    virtual_size_bytes: int


async def verify(source: str, sha256: str) -> Facts:
    """Read the whole image. Raises BadImage, or OSError/httpx.TransportError when it cannot be reached for now."""
    digest = hashlib.sha256()
    head = b""
    size = 0
    async for chunk in chunks(source):
        if len(head) < 512:
            head += chunk[: 512 - len(head)]
        size += len(chunk)
        await asyncio.to_thread(digest.update, chunk)
    if digest.hexdigest() != sha256:
        raise BadImage("checksum_mismatch", f"the bytes at {source} have sha256 {digest.hexdigest()}", "sha256")
    return inspect(head, size)


async def chunks(source: str) -> AsyncIterator[bytes]:
    """The bytes of a path or URL, piece by piece."""
    if source.startswith("/"):
        path = Path(source)
        if not path.is_file():
            raise BadImage("image_missing", f"there is no file {source}", "source")
        with await asyncio.to_thread(path.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
        return
    async with (
        httpx.AsyncClient(timeout=PATIENCE, follow_redirects=True) as client,
        client.stream("GET", source) as answer,
    ):
        if answer.status_code != 200:
            raise BadImage("image_missing", f"{source} answers {answer.status_code}", "source")
        async for chunk in answer.aiter_raw(CHUNK):
            yield chunk


def inspect(head: bytes, size: int) -> Facts:
    """What the first 512 bytes say. Raises BadImage for what is no disk, or names another file."""
    if head.startswith(QCOW2) and len(head) >= 104:
        version, backing_offset = struct.unpack_from(">IQ", head, 4)
        virtual_size = struct.unpack_from(">Q", head, 24)[0]
        incompatible = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
        if backing_offset or incompatible & 0b100:
            raise BadImage("image_invalid", "the image depends on another file (backing or data file)", "source")
        if version not in (2, 3) or not 0 < virtual_size <= 64 * 1024**4:
            raise BadImage("image_invalid", "the qcow2 header makes no sense", "source")
        return Facts("qcow2", size, virtual_size)
    if size >= 512 and size % 512 == 0 and head[510:512] == b"\x55\xaa":
        return Facts("raw", size, size)
    raise BadImage("image_invalid", "neither a qcow2 image nor a raw disk with a boot sector", "source")


class Verifier:
    """Verifies every image that waits for it, each in a task of its own."""

    def __init__(self, store: EventStore, world: World) -> None:
        self._store = store
        self._world = world
        self._watch = world.watch()
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        while True:
            await self._watch.next()
            for found in self._world.images():
                if found.phase is ImagePhase.VERIFYING and found.registered_by not in self._running:
                    task = asyncio.create_task(self._verify(found))
                    self._running[found.registered_by] = task
                    task.add_done_callback(partial(self._done, found.registered_by))

    def _done(self, operation: str, _: asyncio.Task[None]) -> None:
        self._running.pop(operation, None)

    async def _verify(self, found: Image) -> None:
        verdict = await judge(found)
        context = manager("images", operation=found.registered_by)
        ref = Ref(subjects.SYSTEM, "image", found.id)
        while True:
            try:
                await apply(self._store, ref, image.decide, image.evolve, verdict, context)
                break
            except (Unavailable, Conflict) as error:
                log.warning("image verdict waits for the log", image=found.id, error=str(error))
                await asyncio.sleep(1)
        log.info("image verified", image=found.id, verdict=type(verdict).__name__)


async def judge(found: Image) -> ImageCommands:
    """The verdict on an image; a source that cannot be reached is tried a few times."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            facts = await verify(found.source, found.sha256)
        except BadImage as error:
            return reject(found, error.code, error.detail, error.field)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            log.info("image source does not answer", image=found.id, attempt=attempt, error=repr(error))
            reason = str(error) or type(error).__name__
            await asyncio.sleep(attempt if attempt < ATTEMPTS else 0)
        else:
            return AcceptImage(
                image=found.id,
                registration=found.registered_by,
                at=now(),
                format=facts.format,
                size_bytes=facts.size_bytes,
                virtual_size_bytes=facts.virtual_size_bytes,
            )
    detail = f"{found.source} cannot be read: {reason}"
    return reject(found, "image_unreachable", detail, "source")


def reject(found: Image, code: str, detail: str, field: str) -> RejectImage:
    return RejectImage(
        image=found.id, registration=found.registered_by, at=now(), code=code, detail=detail, field=field
    )
