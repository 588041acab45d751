"""A full disk where images arrive, of the handlers that judge them and of a node: nothing is left, and all goes on."""

import asyncio
import dataclasses
import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.images.reading import BadImage, Reader
from node_daemon.failure import Permanent
from runtime.images import download
from runtime.images.disk_room import SHARE, free_bytes
from tests.domain.story import uid
from tests.domain.test_image import VERIFYING
from tests.handlers.platform import raw_disk
from tests.hostile_images import MIB
from tests.image_server import LOOPBACK, Images, ImageServer, serving
from tests.node_daemon.documents import source_of
from tests.small_disk import fill, mounted, needs_root

pytestmark = needs_root

DISK = raw_disk(4 * MIB)[: 2 * MIB] + b"\xa5" * (2 * MIB)
Fetch = Callable[[], Awaitable[int]]
"""Brings an image from its beginning to its end; its bytes. Raises BadImage or Permanent (disk_full)."""


@pytest.fixture
def small(open_folder: Path) -> Iterator[Path]:
    with mounted(open_folder / "arriving", 24) as folder:
        yield folder


@pytest.fixture
async def server() -> AsyncIterator[ImageServer]:
    async with serving(DISK) as server:
        yield server


@pytest.fixture(params=["judged", "judged, a copy", "on a node", "on a node, a copy"])
def fetch(request: pytest.FixtureRequest, small: Path, server: ImageServer, open_folder: Path) -> Fetch:
    path = open_folder / "i.raw"
    path.write_bytes(DISK)
    path.chmod(0o600)  # not for the user that QEMU's tools run as: so it is copied
    origin = str(path) if "copy" in request.param else server.url
    reader, images = Reader(small, [open_folder], LOOPBACK), Images(small / "node", [open_folder])
    said: dict[str, Any] = {"source": origin, "sha256": hashlib.sha256(DISK).hexdigest()}

    async def judged() -> int:
        found = dataclasses.replace(VERIFYING.after, **said)
        return (await reader.facts(found, lambda *_: None)).size_bytes

    async def cached() -> int:
        source = source_of(path, "raw", len(DISK), at=origin)
        return (await images.ensure(source)).path.stat().st_size

    return cached if "node" in request.param else judged


async def refused(fetch: Fetch) -> str:
    with pytest.raises((BadImage, Permanent)) as caught:
        await fetch()
    assert isinstance(caught.value, BadImage | Permanent)
    return caught.value.code


def left(folder: Path) -> list[str]:
    """The files there that take room."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "ballast")
    return [path.name for path in found if path.stat().st_blocks and path.suffix != ".lock"]


@pytest.mark.parametrize("length", [True, False])
async def test_what_finds_no_room_takes_none_and_is_taken_later(
    small: Path, server: ImageServer, fetch: Fetch, length: bool
) -> None:
    server.length = length
    for leave in (0, 64 * 1024, 3 * MIB):  # none at all; for a note; for a part of it
        fill(small / "ballast", leave)
        assert await refused(fetch) == "disk_full"
        assert left(small) == []
        (small / "ballast").unlink()
    assert await fetch() == len(DISK)


async def test_images_of_unknown_length_leave_the_reserve(
    small: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch, open_folder: Path
) -> None:
    """However many there are at a time: each finds the room that the others have taken to be taken."""
    monkeypatch.setattr(download, "AHEAD", 256 * 1024)
    monkeypatch.setattr(download, "CHUNK", 64 * 1024)
    server.length, server.body, server.slow = False, DISK * 4, 0.01
    reader, images = Reader(small, [], LOOPBACK), Images(small / "node", [])
    least = shutil.disk_usage(small).total

    def look(*_: object) -> None:
        nonlocal least
        least = min(least, free_bytes(small))

    async def judged(number: int) -> None:
        said: dict[str, Any] = {"source": server.url, "sha256": None, "project": None, "registered_by": uid(number)}
        await reader.facts(dataclasses.replace(VERIFYING.after, **said), look)

    (open_folder / "i").write_bytes(server.body)

    async def cached() -> None:
        await images.ensure(source_of(open_folder / "i", "raw", len(server.body), at=server.url), look)

    ended = await asyncio.gather(judged(1), judged(2), cached(), return_exceptions=True)
    refusals = [each.code for each in ended if isinstance(each, BadImage | Permanent)]
    assert set(refusals) == {"disk_full"}, ended
    kept = [name for name in left(small) if not name.endswith(".json")]
    assert len(kept) == len(ended) - len(refusals), "what found no room takes none"
    assert least >= shutil.disk_usage(small).total // SHARE - 64 * 1024, "but for the notes beside the parts"
