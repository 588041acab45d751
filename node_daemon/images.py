"""Base images: fetched once per node, verified while they arrive, never half in place."""

import asyncio
import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from domain.contract import ImageSource
from node_daemon.failure import Permanent, Temporary, of_os_error
from node_daemon.files import new_folder, put_in_place
from node_daemon.qemu_img import QemuImgError, qemu_img
from runtime import logs

log = logs.get(__name__)

#: For all, QEMU's user among them; for writing to nobody.
READ_ONLY = 0o444
CHUNK = 1024 * 1024
QCOW2_MAGIC = b"QFI\xfb"
#: Seconds without a byte before a download counts as failed.
SILENCE = 30.0


@dataclass(frozen=True)
class BaseImage:
    """An image in the cache: complete, verified, never written again."""

    path: Path
    format: str
    virtual_bytes: int


class Images:
    """The cache in one folder: `<sha256>.<format>`, and `*.part` while they arrive."""

    def __init__(self, folder: Path) -> None:
        self._folder = new_folder(folder)
        self._known: dict[str, BaseImage] = {}
        self._fetching: dict[str, asyncio.Task[BaseImage]] = {}
        for leftover in folder.glob("*.part"):
            leftover.unlink()

    def path(self, source: ImageSource) -> Path:
        """Where the image is, or will be."""
        return self._folder / f"{source.sha256.lower()}.{source.format}"

    async def ensure(self, source: ImageSource) -> BaseImage:
        """The image, from the cache or else from its source. Whoever asks for the same image shares one fetch.

        Raises Permanent (image_missing, checksum_mismatch, image_invalid, disk_full) or Temporary.
        """
        name = self.path(source).name
        if (known := self._known.get(name)) is not None and known.path.exists():
            return known
        fetch = self._fetching.get(name)
        if fetch is None:
            fetch = asyncio.create_task(self._get(name, source))
            self._fetching[name] = fetch
            fetch.add_done_callback(lambda ended: self._fetched(name, ended))
        return await asyncio.shield(fetch)

    def _fetched(self, name: str, fetch: asyncio.Task[BaseImage]) -> None:
        del self._fetching[name]
        if not fetch.cancelled() and (error := fetch.exception()) is not None:
            log.debug("image not fetched", image=name, error=str(error))  # whoever still waits is told as well

    async def _get(self, name: str, source: ImageSource) -> BaseImage:
        path = self.path(source)
        if not path.exists():
            part = self._folder / f"{name}.{uuid.uuid4().hex}.part"
            started = asyncio.get_running_loop().time()
            try:
                await self._fetch(source, part)
                image = replace(await inspect(part, source.format), path=path)
                await asyncio.to_thread(put_in_place, part, path, READ_ONLY)
            except OSError as error:
                raise of_os_error(error) from error
            finally:
                part.unlink(missing_ok=True)
            seconds = round(asyncio.get_running_loop().time() - started, 3)
            log.info("image fetched", image=source.image, sha256=source.sha256, seconds=seconds)
        else:
            image = await inspect(path, source.format)
        self._known[name] = image
        return image

    async def _fetch(self, source: ImageSource, part: Path) -> None:
        digest = hashlib.sha256()
        received = 0
        with part.open("xb") as file:
            async for chunk in read(source.source):
                received += len(chunk)
                if received > source.size_bytes > 0:
                    break  # it cannot be the right one: no need to see its end
                await asyncio.to_thread(write, file, digest, chunk)
        if digest.hexdigest() != source.sha256.lower():
            raise Permanent(
                "checksum_mismatch",
                f"{source.source} is not the image that was registered ({received} bytes read): "
                f"sha256 is {digest.hexdigest()}, expected {source.sha256}",
            )


def write(file: Any, digest: Any, chunk: bytes) -> None:
    digest.update(chunk)
    file.write(chunk)


async def read(source: str) -> AsyncIterator[bytes]:
    """The bytes behind a path or an http(s) URL. Raises Permanent (image_missing) or Temporary."""
    if source.startswith(("http://", "https://")):
        async for chunk in download(source):
            yield chunk
        return
    try:
        file = await asyncio.to_thread(Path(source).open, "rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise Permanent("image_missing", f"{source}: {error.strerror} on this node") from error
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk


async def download(url: str) -> AsyncIterator[bytes]:
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=SILENCE) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
        ):
            status = response.status_code
            if status in (401, 403, 404, 410):
                raise Permanent("image_missing", f"{url} answers {status} {response.reason_phrase}")
            if status != 200:
                raise Temporary(f"{url} answers {status} {response.reason_phrase}")
            async for chunk in response.aiter_raw(CHUNK):
                yield chunk
    except httpx.UnsupportedProtocol as error:
        raise Permanent("image_missing", f"{url}: {error}") from error
    except httpx.HTTPError as error:
        raise Temporary(f"{url}: {error!r}") from error


async def inspect(path: Path, declared: str) -> BaseImage:
    """What QEMU makes of the file, taken for nothing but the declared format.

    An image must not refer to other files: whoever registers one could otherwise read any file of the node.
    Raises Permanent (image_invalid).
    """
    with path.open("rb") as file:
        magic = file.read(len(QCOW2_MAGIC))
    if (magic == QCOW2_MAGIC) != (declared == "qcow2"):
        raise Permanent("image_invalid", f"the image is registered as {declared}, but is not")
    try:
        answer = await qemu_img("info", "--output=json", "-f", declared, os.fspath(path))
        info = json.loads(answer)
    except QemuImgError as error:
        raise Permanent("image_invalid", f"QEMU cannot read the image: {error}") from error
    external: object = None
    with contextlib.suppress(KeyError, TypeError):
        external = info["format-specific"]["data"]["data-file"]
    if info.get("backing-filename") or external:
        raise Permanent("image_invalid", "the image refers to another file; flatten it (qemu-img convert)")
    return BaseImage(path=path, format=declared, virtual_bytes=int(info["virtual-size"]))
