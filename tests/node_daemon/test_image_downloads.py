"""Downloads that break off, stall, lie or are killed: what has arrived is kept, and only the right image is seen."""

import asyncio
import errno
import hashlib
import os
import shutil
import signal
import sys
import threading
import time
from collections import namedtuple
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.contract import ImageSource
from node_daemon.failure import Permanent, Temporary
from node_daemon.storage.shared import Hear
from runtime.images import download
from tests.image_server import LOOPBACK, Images, ImageServer, serving
from tests.node_daemon.documents import MIB, source_of
from tests.waiting import eventually

SIZE = 5 * MIB
BODY = os.urandom(SIZE)
HALF = 2 * MIB


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
async def server() -> AsyncIterator[ImageServer]:
    async with serving(BODY) as server:
        yield server


@pytest.fixture
def source(tmp_path: Path, server: ImageServer) -> ImageSource:
    path = tmp_path / "i.raw"
    path.write_bytes(BODY)
    return source_of(path, "raw", SIZE, at=server.url)


async def broken_off(images: Images, server: ImageServer, source: ImageSource, after: int = HALF) -> None:
    server.cut = after
    with pytest.raises(Temporary):
        await images.ensure(source)
    server.cut = None


async def test_a_file_that_comes_packed_for_the_way_is_called_that(
    cache: Path, server: ImageServer, source: ImageSource
) -> None:
    server.encoding = "gzip"
    with pytest.raises(Permanent, match="Content-Encoding: gzip") as caught:
        await Images(cache, []).ensure(source)
    assert caught.value.code == "image_encoded"


async def complete(images: Images, source: ImageSource) -> None:
    base = await images.ensure(source)
    assert base.path.read_bytes() == BODY
    assert [path.name for path in base.path.parent.iterdir()] == [base.path.name], "nothing else is left"


async def test_a_download_goes_on_where_it_broke_off(cache: Path, server: ImageServer, source: ImageSource) -> None:
    await broken_off(Images(cache, []), server, source)
    [part] = cache.glob("*.part")
    assert part.stat().st_size == HALF
    await complete(Images(cache, []), source)
    assert [asked.get("range") for asked in server.requests] == [None, f"bytes={HALF}-"]
    assert server.requests[1]["if-range"] == '"v1"'


async def test_many_times(cache: Path, server: ImageServer, source: ImageSource) -> None:
    images = Images(cache, [])
    for _ in range(4):
        await broken_off(images, server, source, after=MIB)
    await complete(images, source)
    assert server.requests[-1]["range"] == f"bytes={4 * MIB}-"


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
async def test_by_the_time_of_its_last_change(
    cache: Path, server: ImageServer, source: ImageSource, etag: str | None
) -> None:
    server.etag, server.last_modified = etag, "Tue, 05 May 2026 10:00:00 GMT"
    await broken_off(Images(cache, []), server, source)
    await complete(Images(cache, []), source)
    assert server.requests[1]["if-range"] == server.last_modified


@pytest.mark.parametrize("change", [{"etag": None}, {"etag": 'W/"weak"'}])
async def test_what_no_server_vouches_for_is_fetched_anew(
    cache: Path, server: ImageServer, source: ImageSource, change: dict[str, Any]
) -> None:
    vars(server).update(change)
    await broken_off(Images(cache, []), server, source)
    await complete(Images(cache, []), source)
    assert "range" not in server.requests[1]


async def test_a_server_without_ranges_starts_anew(cache: Path, server: ImageServer, source: ImageSource) -> None:
    server.ranges = False
    await broken_off(Images(cache, []), server, source)
    await complete(Images(cache, []), source)


async def test_another_file_behind_the_same_url_is_not_spliced(
    cache: Path, server: ImageServer, source: ImageSource
) -> None:
    server.body = os.urandom(SIZE)
    await broken_off(Images(cache, []), server, source)
    server.body, server.etag = BODY, '"v2"'
    await complete(Images(cache, []), source)


async def test_a_server_that_vouches_wrongly_costs_one_more_try(
    cache: Path, server: ImageServer, source: ImageSource
) -> None:
    server.body = os.urandom(SIZE)
    await broken_off(Images(cache, []), server, source)
    server.body = BODY
    images = Images(cache, [])
    with pytest.raises(Temporary):
        await images.ensure(source)
    await complete(images, source)
    assert "range" not in server.requests[2]


async def test_bytes_that_a_power_failure_took_cost_one_more_try(
    cache: Path, server: ImageServer, source: ImageSource
) -> None:
    await broken_off(Images(cache, []), server, source)
    [part] = cache.glob("*.part")
    part.write_bytes(b"\0" * HALF)
    with pytest.raises(Temporary):
        await Images(cache, []).ensure(source)
    await complete(Images(cache, []), source)


async def test_all_had_arrived_but_nobody_had_looked(cache: Path, server: ImageServer, source: ImageSource) -> None:
    await broken_off(Images(cache, []), server, source)
    [part] = cache.glob("*.part")
    part.write_bytes(BODY)
    await complete(Images(cache, []), source)
    assert len(server.requests) == 1


async def test_of_unknown_length(cache: Path, server: ImageServer, source: ImageSource) -> None:
    server.length = False
    await broken_off(Images(cache, []), server, source)
    await complete(Images(cache, []), source)
    assert server.requests[1]["range"] == f"bytes={HALF}-"


def untold(*_: object) -> None:
    """Nobody wants to know."""


async def test_all_there_and_the_length_unknown(cache: Path, server: ImageServer, source: ImageSource) -> None:
    server.length = False
    await broken_off(Images(cache, []), server, source)
    [path] = cache.glob("*.part")
    path.write_bytes(BODY)
    part = download.Part(path)
    assert await download.download(server.url, part, hosts=LOOPBACK, tell=untold, check=untold, most=SIZE)
    assert server.requests[-1]["range"] == f"bytes={SIZE}-"
    assert path.read_bytes() == BODY
    await complete(Images(cache, []), source)
    assert len(server.requests) == 2, "what is all there is looked at, and not asked for"


async def test_an_endless_file_ends(cache: Path, server: ImageServer, source: ImageSource) -> None:
    server.length, server.body = False, BODY * 20
    with pytest.raises(Permanent, match=r"checksum_mismatch: .*more than"):
        await Images(cache, []).ensure(source)
    assert list(cache.iterdir()) == []


async def test_another_length_is_not_even_read(cache: Path, server: ImageServer, source: ImageSource) -> None:
    server.body = BODY + b"\0"
    with pytest.raises(Permanent, match=f"it has {SIZE + 1} bytes, expected {SIZE}"):
        await Images(cache, []).ensure(source)


async def test_wrong_bytes_are_removed_and_fetched_anew(cache: Path, server: ImageServer, source: ImageSource) -> None:
    images = Images(cache, [])
    server.body = os.urandom(SIZE)
    with pytest.raises(Permanent, match="checksum_mismatch"):
        await images.ensure(source)
    assert list(cache.iterdir()) == []
    server.body = BODY
    await complete(images, source)


async def test_every_digest_that_is_given_counts(cache: Path, source: ImageSource) -> None:
    both = source.model_copy(update={"sha512": hashlib.sha512(BODY).hexdigest()})
    await complete(Images(cache, []), both)
    wrong = source.model_copy(update={"sha512": "0" * 128})
    with pytest.raises(Permanent, match=r"checksum_mismatch: .*sha512"):
        await Images(cache / "other", []).ensure(wrong)


async def test_silence_ends_a_try_and_what_came_before_counts(
    cache: Path, server: ImageServer, source: ImageSource
) -> None:
    server.stall = HALF
    images = Images(cache, [], silence=0.2)
    with pytest.raises(Temporary, match=r"nothing of the file|ReadTimeout"):
        await images.ensure(source)
    server.stall = None
    await complete(images, source)
    assert server.requests[1]["range"] == f"bytes={HALF}-"


async def test_slow_is_not_silent(cache: Path, server: ImageServer, source: ImageSource) -> None:
    server.slow = 0.02
    await complete(Images(cache, [], silence=0.5), source)


def noted(heard: list[int]) -> Hear:
    return lambda _, done, __: heard.append(done)


async def test_two_askers_one_download_and_both_hear_of_it(
    cache: Path, server: ImageServer, source: ImageSource
) -> None:
    heard: list[list[int]] = [[], []]
    server.slow = 0.001
    images = Images(cache, [])
    await asyncio.gather(*(images.ensure(source, noted(to)) for to in heard))
    assert len(server.requests) == 1
    assert heard[0] == heard[1]
    assert (heard[0][0], heard[0][-1]) == (0, SIZE)


async def test_when_the_last_asker_leaves_it_ends_and_goes_on_later(
    cache: Path, server: ImageServer, source: ImageSource
) -> None:
    server.stall = HALF
    images = Images(cache, [])
    tasks = [asyncio.create_task(images.ensure(source)) for _ in range(2)]

    def half_there() -> bool:
        return sum(part.stat().st_size for part in cache.glob("*.part")) >= MIB

    await eventually(half_there, "half of it")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    server.stall = None
    await complete(images, source)
    first, second = (asked.get("range") for asked in server.requests)
    assert first is None
    assert second is not None
    assert MIB <= int(second.removeprefix("bytes=").removesuffix("-")) <= HALF


async def test_what_is_being_written_when_the_last_asker_leaves_is_written_once(
    cache: Path, server: ImageServer, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = threading.Event()

    def slow(descriptor: int, chunk: bytes) -> None:
        writing.set()
        time.sleep(0.2)
        os.write(descriptor, chunk)

    monkeypatch.setattr(download, "write", slow)
    task = asyncio.create_task(Images(cache, []).ensure(source))
    await eventually(writing.is_set, "the first chunk is being written")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.6)  # a second time would follow at once
    [part] = cache.glob("*.part")
    arrived = part.read_bytes()
    assert arrived
    assert arrived == BODY[: len(arrived)]


Usage = namedtuple("Usage", "total used free")


async def test_no_room_is_said_in_bytes_before_any_is_written(
    cache: Path, server: ImageServer, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(SIZE, SIZE - 5, 5))
    with pytest.raises(Permanent, match=f"disk_full: the image needs {SIZE} more bytes .* 5 bytes free"):
        await Images(cache, []).ensure(source)
    assert list(cache.iterdir()) == []


async def test_a_disk_that_fills_up_meanwhile_is_not_kept_full(
    cache: Path, server: ImageServer, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def write(descriptor: int, chunk: bytes) -> None:
        nonlocal written
        if written >= HALF:
            raise OSError(errno.ENOSPC, "No space left on device")
        written += os.write(descriptor, chunk)

    monkeypatch.setattr(download, "write", write)
    with pytest.raises(Permanent, match=f"disk_full: the image needs {SIZE - HALF} more bytes"):
        await Images(cache, []).ensure(source)
    assert list(cache.iterdir()) == []


async def test_killed_in_the_middle_it_goes_on(cache: Path, server: ImageServer, source: ImageSource) -> None:
    server.stall = HALF
    command = [sys.executable, "-m", "tests.node_daemon.fetch", str(cache), source.model_dump_json()]
    process = await asyncio.create_subprocess_exec(*command)

    def half_there() -> bool:
        return sum(part.stat().st_size for part in cache.glob("*.part")) >= MIB

    try:
        await eventually(half_there, "half of it")
        assert not list(cache.glob("*.raw")), "nobody sees half a file"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    [part] = cache.glob("*.part")
    there = part.stat().st_size
    server.stall = None
    await complete(Images(cache, []), source)
    assert [asked.get("range") for asked in server.requests] == [None, f"bytes={there}-"]
