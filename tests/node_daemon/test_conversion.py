"""qcow2 images that become raw ones: by the real qemu-img, once, with room for it, whatever ends it in the middle."""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from domain.contract import ImageSource
from node_daemon.failure import Permanent, Temporary
from node_daemon.reconcile import executor
from node_daemon.reconcile.executor import report_some
from node_daemon.storage import conversion, images as images_module
from node_daemon.storage.base_image import BaseImage
from node_daemon.storage.conversion import most_bytes
from runtime.images.qemu_img import QemuImgError, qemu_img
from runtime.settings import NodeSettings, read
from runtime.tasks import gauge
from tests.hostile_images import based_on, bomb, spoiled
from tests.image_server import Images, ImageServer, serving
from tests.node_daemon.conversions import SIZE, cache, image, names
from tests.node_daemon.documents import MIB, raw_image, source_of
from tests.processes import alive, children
from tests.waiting import eventually

__all__ = ["cache"]

CONVERTING = ("qemu-img", "convert", "-n")


def same(source: Path, made: Path) -> bool:
    """Whether a qcow2 and a raw file hold the same disk."""
    compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(source), str(made)]
    return subprocess.run(compare, check=False).returncode == 0


@pytest.fixture
async def server() -> AsyncIterator[ImageServer]:
    async with serving() as server:
        yield server


@pytest.fixture
def source(tmp_path: Path, server: ImageServer) -> ImageSource:
    """An image behind a URL."""
    made = image(tmp_path / "i.qcow2")
    server.body = (tmp_path / "i.qcow2").read_bytes()
    return made.model_copy(update={"source": server.url})


@pytest.fixture
def brake(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file; as long as it is there, the real qemu-img writes half a MiB a second when it converts."""
    flag, folder, tool = open_folder / "brake", open_folder, shutil.which("qemu-img")
    (folder / "qemu-img").write_text(
        f'#!/bin/sh\nif [ "$1" = convert ] && [ -e {flag} ]; then shift; set -- convert -r 512k "$@"; fi\n'
        f'exec {tool} "$@"\n'
    )
    (folder / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    flag.touch()
    return flag


def half_converted(cache: Path) -> Callable[[], bool]:
    return lambda: any(path.stat().st_blocks for path in cache.glob("*.raw.converting"))


async def whole(cache: Path, source: ImageSource, original: Path) -> None:
    """It is had, and nothing else is left."""
    base = await Images(cache, []).ensure(source)
    assert same(original, base.path)
    assert names(cache) == [f"{source.sha256}.raw"]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-c",),
        ("-c", "-o", "compression_type=zstd"),
        ("-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "extended_l2=on"),
        ("-o", "compat=0.10"),
        ("-o", "preallocation=metadata"),
    ],
    ids=" ".join,
)
async def test_the_same_disk(tmp_path: Path, cache: Path, options: tuple[str, ...]) -> None:
    source = image(tmp_path / "i.qcow2", *options, data=3 * MIB + 512, hole=5 * MIB)
    base = await Images(cache, [tmp_path]).ensure(source)
    assert base == BaseImage(cache / f"{source.sha256}.raw", "raw", 8 * MIB + 512)
    assert same(tmp_path / "i.qcow2", base.path)
    assert names(cache) == [base.path.name], "the source's bytes are not kept"
    assert base.path.stat().st_mode & 0o777 == 0o444
    (tmp_path / "i.qcow2").unlink()
    assert await Images(cache, [tmp_path]).ensure(source) == base, "it is known after a restart"


async def test_holes_stay_holes_and_only_the_rest_counts(tmp_path: Path, cache: Path) -> None:
    source = image(tmp_path / "i.qcow2", data=2 * MIB, hole=1024 * MIB)
    images = Images(cache, [tmp_path])
    base = await images.ensure(source)
    taken = base.path.stat().st_blocks * 512
    assert base.virtual_bytes == base.path.stat().st_size == 1026 * MIB
    assert 2 * MIB <= taken < 3 * MIB
    assert (images.use().images, images.use().bytes, images.use().budget_bytes) == (1, taken, None)
    with (tmp_path / "i.qcow2").open("rb", buffering=0) as file:
        assert taken <= await most_bytes(file, base.virtual_bytes) < 3 * MIB


async def test_what_a_guest_could_have_put_there_counts_as_nothing(tmp_path: Path, cache: Path) -> None:
    """A disk whose first bytes are those of a qcow2 image with a backing file."""
    inner, outer = tmp_path / "inner", tmp_path / "i.qcow2"
    based_on("/etc/shadow")(inner)
    os.truncate(inner, MIB)
    await qemu_img("convert", "-f", "raw", "-O", "qcow2", str(inner), str(outer))
    source = source_of(outer, "qcow2", MIB)
    for images in (Images(cache, [tmp_path]), Images(cache, [])):
        base = await images.ensure(source)
        assert base.virtual_bytes == MIB
        assert base.path.read_bytes() == inner.read_bytes()


async def test_once_for_all_who_ask(
    cache: Path, server: ImageServer, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    async def counted(*args: object) -> None:
        asked.append(cache)
        await conversion.convert(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(images_module, "convert", counted)
    images = Images(cache, [])
    heard: list[list[tuple[str, int, int | None]]] = [[], []]
    found = await asyncio.gather(*(images.ensure(source, lambda *said, to=to: to.append(said)) for to in heard))
    assert found[0] == found[1] == await images.ensure(source)
    assert (len(asked), len(server.requests)) == (1, 1)
    assert heard[0] == heard[1]
    assert [stage for stage, _, _ in heard[0]] == sorted(stage for stage, _, _ in heard[0]), "first the one, then ..."
    assert ("converting", 0, SIZE) in heard[0]


async def test_one_after_the_other(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now: list[int] = []

    async def watched(*args: object) -> None:
        now.append(len(list(cache.glob("*.converting"))))
        await conversion.convert(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(images_module, "convert", watched)
    images = Images(cache, [tmp_path])
    await asyncio.gather(*(images.ensure(image(tmp_path / f"{n}.qcow2", data=MIB)) for n in range(3)))
    assert now == [0, 0, 0], "each counts on the room that it found"
    assert len(names(cache)) == 3


@pytest.mark.parametrize("etag", ['"v1"', None], ids=["vouched for", "not vouched for"])
async def test_killed_in_the_middle_it_is_converted_without_another_download(
    tmp_path: Path, cache: Path, server: ImageServer, source: ImageSource, brake: Path, etag: str | None
) -> None:
    server.etag = etag
    command = [sys.executable, "-m", "tests.node_daemon.fetch", str(cache), source.model_dump_json()]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await eventually(half_converted(cache), "half of it")
        assert not list(cache.glob("*.raw")), "nobody sees half a file"
        [pid] = children(*CONVERTING, of=process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    await eventually(lambda: not alive(pid), "nobody goes on writing", seconds=5)
    assert f"{source.sha256}.qcow2.part" in names(cache)
    brake.unlink()
    await whole(cache, source, tmp_path / "i.qcow2")
    assert len(server.requests) == 1


async def test_killed_when_all_was_done(tmp_path: Path, cache: Path, server: ImageServer, source: ImageSource) -> None:
    await whole(cache, source, tmp_path / "i.qcow2")
    part = cache / f"{source.sha256}.qcow2.part"
    part.write_bytes(server.body)
    part.with_name(f"{part.name}.json").write_text("{}")
    await whole(cache, source, tmp_path / "i.qcow2")
    assert len(server.requests) == 1


async def test_a_start_clears_what_a_crash_left(cache: Path) -> None:
    cache.mkdir()
    for name in (f"{'a' * 64}.raw.converting", "somebody-else.raw.converting"):
        (cache / name).write_bytes(b"half")
    Images(cache, [])
    assert names(cache) == ["somebody-else.raw.converting"]


async def test_when_the_last_asker_leaves_it_ends_and_goes_on_later(
    tmp_path: Path, cache: Path, server: ImageServer, source: ImageSource, brake: Path
) -> None:
    images = Images(cache, [])
    tasks = [asyncio.create_task(images.ensure(source)) for _ in range(2)]
    await eventually(half_converted(cache), "half of it")
    tasks[0].cancel()
    await asyncio.sleep(0.1)
    [pid] = children(*CONVERTING)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await eventually(lambda: not list(cache.glob("*.converting")), "nothing half is left")
    assert not alive(pid)
    brake.unlink()
    await whole(cache, source, tmp_path / "i.qcow2")
    assert len(server.requests) == 1


async def test_ended_from_outside_it_is_tried_again(
    tmp_path: Path, cache: Path, server: ImageServer, source: ImageSource, brake: Path
) -> None:
    task = asyncio.create_task(Images(cache, []).ensure(source))
    await eventually(half_converted(cache), "half of it")
    [pid] = children(*CONVERTING)
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(Temporary, match="ended from outside"):
        await task
    brake.unlink()
    await whole(cache, source, tmp_path / "i.qcow2")
    assert len(server.requests) == 1


async def test_one_that_is_converted_is_left_alone(cache: Path, source: ImageSource, brake: Path) -> None:
    images = Images(cache, [], budget=1)
    task = asyncio.create_task(images.ensure(source))
    await eventually(half_converted(cache), "half of it")
    for path in cache.iterdir():
        os.utime(path, (1, 1))
    before = names(cache)
    await images.tidy({source.sha256})
    assert names(cache) == before
    assert images.use().bytes > Path(cache / f"{source.sha256}.qcow2.part").stat().st_size, "both count"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ── room ────────────────────────────────────────────────────────────────────────────────────────────────────────────

Usage = namedtuple("Usage", "total used free")


async def old(images: Images, tmp_path: Path) -> Path:
    """An image that nobody has asked for in a long time."""
    base = await images.ensure(raw_image(tmp_path / "old.raw"))
    os.utime(base.path, (1, 1))
    return base.path


async def test_a_small_file_of_terabytes_is_refused_before_a_byte_is_written(tmp_path: Path, cache: Path) -> None:
    images = Images(cache, [tmp_path])
    other = await old(images, tmp_path)
    bomb(tmp_path / "i.qcow2")
    source = source_of(tmp_path / "i.qcow2", "qcow2", 8 << 40)
    stages: set[str] = set()
    with pytest.raises(Permanent, match=f"disk_full: .* up to {8 << 40} more bytes .* bytes free"):
        await images.ensure(source, lambda stage, *_: stages.add(stage))
    assert stages == {"arriving"}
    assert names(cache) == [other.name], "nor does it drive out others in vain"


async def test_no_room_is_said_in_bytes_before_any_is_written(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for what arrives, and then a byte too little for what becomes of it beside that."""
    source = image(tmp_path / "i.qcow2", "-c", data=MIB, hole=7 * MIB)
    with (tmp_path / "i.qcow2").open("rb", buffering=0) as file:
        most = await most_bytes(file, SIZE)

    def usage(_: object) -> Usage:
        return Usage(0, 0, most - 1 if list(cache.glob("*.part")) else 2 * MIB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(Permanent, match=f"disk_full: .* up to {most} more bytes .* {most - 1} bytes free"):
        await Images(cache, [tmp_path]).ensure(source)
    assert names(cache) == []


async def test_room_is_made_of_what_nobody_needs(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(cache, [tmp_path])
    other = await old(images, tmp_path)
    source = image(tmp_path / "i.qcow2", data=SIZE)

    def usage(_: object) -> Usage:
        arriving = bool(list(cache.glob("*.part")))
        return Usage(0, 0, SIZE - MIB * other.exists() if arriving else 2 * SIZE)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert (await images.ensure(source)).path.exists()
    assert not other.exists()


async def test_the_budget_is_kept_to(tmp_path: Path, cache: Path) -> None:
    images = Images(cache, [tmp_path], budget=4 * MIB)
    other = await old(images, tmp_path)
    small = image(tmp_path / "small.qcow2", "-c", data=MIB, hole=SIZE)
    await images.ensure(small)
    assert other.exists(), "1 MiB, and as much twice for a while"
    await images.ensure(image(tmp_path / "large.qcow2", data=2 * MIB))
    assert not other.exists()


async def test_a_disk_that_fills_up_meanwhile_is_not_kept_full(
    cache: Path, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fills(*arguments: str, **more: object) -> bytes:
        os.pwrite(more["files"][1], b"x" * MIB, 0)  # type: ignore[index]
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 5))
        raise QemuImgError("it stops there")

    monkeypatch.setattr(conversion, "qemu_img", fills)
    with pytest.raises(Permanent, match=f"disk_full: .* up to {SIZE - MIB} more bytes .* 5 bytes free"):
        await Images(cache, []).ensure(source)
    assert names(cache) == []


async def test_what_cannot_be_unpacked_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    spoiled(tmp_path / "i.qcow2")
    with pytest.raises(Permanent, match="image_invalid: qemu-img convert refuses the image"):
        await Images(cache, [tmp_path]).ensure(source_of(tmp_path / "i.qcow2", "qcow2", 2 * MIB))
    assert names(cache) == []


async def test_more_than_a_file_can_have(cache: Path, source: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: int) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "ftruncate", refuses)
    with pytest.raises(Permanent, match=f"image_invalid: its disk of {SIZE} bytes is larger than a raw file can be"):
        await Images(cache, []).ensure(source)
    assert names(cache) == []


# ── said and set ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_how_far_it_is_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauge, "SECONDS", 0)
    said: list[str] = []
    hear = report_some(said.append)
    for stage in executor.WORDS:
        for done in range(0, 101 * MIB, MIB):
            hear(stage, done, 100 * MIB)
    assert said[0] == "image, 10 % of 100 MiB"
    assert said[9] == "image, from its source, 10 % of 100 MiB"
    assert said[18] == "image, converting, 10 % of 100 MiB"
    assert len(said) == 27


def test_the_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(NodeSettings).image_base == "raw"
    monkeypatch.setenv("NEBULA_IMAGE_BASE", "source")
    assert read(NodeSettings).image_base == "source"
    monkeypatch.setenv("NEBULA_IMAGE_BASE", "qcow2")
    with pytest.raises(SystemExit):
        read(NodeSettings)
    assert "NEBULA_IMAGE_BASE" in capsys.readouterr().err
