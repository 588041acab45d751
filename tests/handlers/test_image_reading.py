"""What is registered is read: from a path or a URL, whole, resumed, and refused for the right reason."""

import asyncio
import dataclasses
import gzip
import hashlib
import os
import shutil
from collections import namedtuple
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.image import Image
from handlers.images import reading
from handlers.images.reading import BadImage, Facts, Reader
from runtime.files.lock import turn
from runtime.images.download import Pace
from runtime.tasks.backoff import Backoff
from tests.domain.story import uid
from tests.domain.test_image import VERIFYING
from tests.handlers.platform import raw_disk
from tests.hostile_images import HOSTILE, MIB, qcow2
from tests.image_server import LOOPBACK, ImageServer, serving

DISK = raw_disk(4 * MIB)[: 2 * MIB] + os.urandom(2 * MIB)


def nobody(done: int, total: int | None) -> None:
    """Nobody wants to know."""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def registered(source: Path | str, body: bytes | None = None, **more: Any) -> Image:
    content = Path(source).read_bytes() if body is None else body
    said = {"source": str(source), "sha256": digest(content), **more}
    return dataclasses.replace(VERIFYING.after, **said)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr(reading, "RETRY", Backoff(first=0.01, last=0.01))
    return Reader(tmp_path / "imports", [tmp_path], LOOPBACK)


@pytest.fixture
async def server() -> AsyncIterator[ImageServer]:
    async with serving(DISK) as server:
        yield server


async def refused(reader: Reader, found: Image) -> BadImage:
    with pytest.raises(BadImage) as caught:
        await reader.facts(found, nobody)
    return caught.value


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_must_not_be_used(tmp_path: Path, reader: Reader, name: str) -> None:
    make, said = HOSTILE[name]
    make(tmp_path / "i")
    error = await refused(reader, registered(tmp_path / "i"))
    assert (error.code, error.field) == ("image_invalid", "source")
    with pytest.raises(BadImage, match=said):
        raise error


@pytest.mark.parametrize("name", ["backing file", "data file", "snapshots", "vmdk"])
async def test_from_a_url_neither(tmp_path: Path, reader: Reader, server: ImageServer, name: str) -> None:
    HOSTILE[name][0](tmp_path / "i")
    server.body = (tmp_path / "i").read_bytes()
    assert (await refused(reader, registered(server.url, server.body))).code == "image_invalid"


async def test_facts(tmp_path: Path, reader: Reader, server: ImageServer) -> None:
    qcow2(tmp_path / "i")
    found = registered(tmp_path / "i")
    assert await reader.facts(found, nobody) == Facts("qcow2", 196616, 8 * MIB, digest((tmp_path / "i").read_bytes()))
    found = registered(server.url, DISK)
    assert await reader.facts(found, nobody) == Facts("raw", len(DISK), len(DISK), digest(DISK))


async def test_a_disk_without_a_boot_sector(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "i").write_bytes(b"<!DOCTYPE html>".ljust(MIB))
    assert "web page" in (await refused(reader, registered(tmp_path / "i"))).detail


async def test_a_file_that_comes_packed_for_the_way_is_called_that(reader: Reader, server: ImageServer) -> None:
    server.body, server.encoding = gzip.compress(DISK), "gzip"
    error = await refused(reader, registered(server.url, DISK))
    assert error.code == "image_encoded" and "Content-Encoding: gzip" in error.detail
    assert "unpack" not in error.detail
    server.body, server.encoding = DISK, "identity"
    assert (await reader.facts(registered(server.url, DISK), nobody)).format == "raw"


@pytest.mark.parametrize(
    ("begins", "said"),
    [
        (b"", "the file is empty"),
        (b"<html><title>403", "a web page"),
        (b'\n{"message": "no"}', "a JSON document"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (bytes(0x8001) + b"CD001" + bytes(2048 - 6), "the ISO of an installer"),
        (b"x" * 700, "no whole number of sectors of 512 bytes"),
    ],
)
async def test_what_is_no_image_is_called_what_it_is(tmp_path: Path, reader: Reader, begins: bytes, said: str) -> None:
    (tmp_path / "i").write_bytes(begins)
    assert said in (await refused(reader, registered(tmp_path / "i"))).detail


async def test_a_file_name_with_blanks(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "my first disk.raw").write_bytes(DISK)
    assert (await reader.facts(registered(tmp_path / "my first disk.raw"), nobody)).format == "raw"


async def test_only_files_of_the_allowed_folders(tmp_path: Path, reader: Reader) -> None:
    error = await refused(reader, registered("/etc/hostname"))
    assert (error.code, error.field) == ("image_not_allowed", "source")
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert (await refused(reader, registered(tmp_path / "link"))).code == "image_not_allowed"
    assert (await refused(reader, registered(tmp_path / "none", b""))).code == "image_missing"


async def test_other_bytes(tmp_path: Path, reader: Reader, server: ImageServer) -> None:
    (tmp_path / "i").write_bytes(DISK)
    for source in (str(tmp_path / "i"), server.url):
        error = await refused(reader, registered(source, b"other"))
        assert (error.code, error.field) == ("checksum_mismatch", "sha256")


async def test_a_source_that_breaks_off_is_read_on(reader: Reader, server: ImageServer) -> None:
    server.cut = MIB // 2
    heard: list[int] = []
    facts = await reader.facts(registered(server.url, DISK), lambda done, total: heard.append(done))
    assert facts.size_bytes == len(DISK)
    assert len(server.requests) == 8
    assert heard == sorted(heard)
    assert heard[-1] == len(DISK)


async def test_one_that_brings_nothing_more_is_unreachable(reader: Reader, server: ImageServer) -> None:
    server.status = "502 Bad Gateway"
    error = await refused(reader, registered(server.url, DISK))
    assert (error.code, error.field) == ("image_unreachable", "source")
    assert len(server.requests) == reading.TRIES
    server.status = "404 Not Found"
    assert (await refused(reader, registered(server.url, DISK))).code == "image_missing"


@pytest.mark.parametrize(
    ("pace", "tries", "said"),
    [
        (Pace(least=10**9), reading.TRIES, "tried 4 times"),
        (Pace(least=0, whole=0), 1, "more than 0 s"),
    ],
)
async def test_hanging_up_again_and_again_makes_no_source_faster(
    reader: Reader, server: ImageServer, monkeypatch: pytest.MonkeyPatch, pace: Pace, tries: int, said: str
) -> None:
    """With a few bytes more at each try it would keep its place for ever."""
    monkeypatch.setattr(reading, "PACE", pace)
    server.cut = 1000
    error = await refused(reader, registered(server.url, DISK))
    assert error.code == "image_unreachable" and said in error.detail
    assert len(server.requests) == tries


async def test_a_reader_that_died_is_followed_by_one_that_goes_on(
    tmp_path: Path, reader: Reader, server: ImageServer
) -> None:
    server.stall = MIB
    found = registered(server.url, DISK)
    reading = asyncio.create_task(reader.facts(found, nobody))
    while not any(path.stat().st_size >= MIB for path in (tmp_path / "imports").glob("*.part")):
        await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    server.stall = None
    again = Reader(tmp_path / "imports", [], LOOPBACK)
    again.sweep({found.registered_by})
    await again.facts(found, nobody)
    assert server.requests[-1]["range"] == f"bytes={MIB}-"
    again.sweep(set())
    assert list((tmp_path / "imports").iterdir()) == []


async def test_what_was_resumed_and_does_not_fit_is_read_anew(
    tmp_path: Path, reader: Reader, server: ImageServer
) -> None:
    found = registered(server.url, DISK)
    server.body, server.stall = os.urandom(len(DISK)), MIB
    reading = asyncio.create_task(reader.facts(found, nobody))
    while not any(path.stat().st_size >= MIB for path in (tmp_path / "imports").glob("*.part")):
        await asyncio.sleep(0.01)
    server.body, server.stall = DISK, None
    server.go_on.set()
    assert (await reading).size_bytes == len(DISK)


Usage = namedtuple("Usage", "total used free")


async def test_no_room(reader: Reader, server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 5, 5))
    error = await refused(reader, registered(server.url, DISK))
    assert error.code == "disk_full"
    assert f"{len(DISK)} bytes" in error.detail


async def test_two_processes_read_one_after_the_other(tmp_path: Path, reader: Reader, server: ImageServer) -> None:
    found = registered(server.url, DISK)
    async with turn(tmp_path / "imports" / f"{uid(10)}.lock"):
        reading = asyncio.create_task(reader.facts(found, nobody))
        await asyncio.sleep(0.1)
        assert not server.requests
    assert (await reading).size_bytes == len(DISK)
