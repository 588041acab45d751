"""What may be used as a disk image, judged by its header and by the real qemu-img."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from runtime.images import qemu_img as tool
from runtime.images.disk_image import Shape, Unusable, objection
from runtime.images.inspection import inspect
from runtime.images.qemu_img import READS, Limits, QemuImgError, qemu_img
from tests.hostile_images import HOSTILE, MIB, filled, qcow2
from tests.processes import alive, children
from tests.waiting import eventually


async def inspected(path: Path, declared: str | None = None) -> Shape:
    with path.open("rb", buffering=0) as file:
        return await inspect(file, declared)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_must_not_be_used(tmp_path: Path, name: str) -> None:
    make, said = HOSTILE[name]
    make(tmp_path / "i")
    with pytest.raises(Unusable, match=said):
        await inspected(tmp_path / "i")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-o", "compat=0.10"),
        ("-o", "compression_type=zstd"),
        ("-o", "extended_l2=on,cluster_size=64k"),
        ("-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "preallocation=metadata"),
        ("-o", "lazy_refcounts=on"),
        ("-o", "refcount_bits=1"),
    ],
)
async def test_every_kind_of_good_qcow2(tmp_path: Path, options: tuple[str, ...]) -> None:
    qcow2(tmp_path / "i", *options)
    assert await inspected(tmp_path / "i", "qcow2") == Shape("qcow2", (tmp_path / "i").stat().st_size, 8 * MIB)


async def test_compressed_inside(tmp_path: Path) -> None:
    filled(tmp_path / "plain")
    packed = tmp_path / "packed"
    await qemu_img("convert", "-c", "-O", "qcow2", str(tmp_path / "plain"), str(packed))
    assert (await inspected(packed)).virtual_bytes == 2 * MIB


async def test_raw(tmp_path: Path) -> None:
    (tmp_path / "i").write_bytes(os.urandom(MIB))
    assert await inspected(tmp_path / "i", "raw") == Shape("raw", MIB, MIB)


async def test_the_format_is_never_guessed(tmp_path: Path) -> None:
    """The bytes of a raw disk are its guest's: they may look like anything, and stay raw only where nothing probes."""
    qcow2(tmp_path / "i")
    with pytest.raises(Unusable, match="registered as raw, but is qcow2"):
        await inspected(tmp_path / "i", "raw")
    (tmp_path / "r").write_bytes(bytes(MIB))
    with pytest.raises(Unusable, match="registered as qcow2, but is raw"):
        await inspected(tmp_path / "r", "qcow2")


async def test_a_file_swapped_behind_its_name_is_not_what_is_looked_at(tmp_path: Path) -> None:
    qcow2(tmp_path / "i")
    with (tmp_path / "i").open("rb", buffering=0) as file:
        (tmp_path / "i").unlink()
        (tmp_path / "i").symlink_to("/etc/shadow")
        assert (await inspect(file)).virtual_bytes == 8 * MIB


@pytest.mark.parametrize(
    "told",
    [
        {"backing-filename": "x"},
        {"format-specific": {"data": {"data-file": "x"}}},
        {"format-specific": {"data": {"corrupt": True}}},
        {"encrypted": True},
        {"snapshots": [{}]},
        {"dirty-flag": True},
        {"virtual-size": 1},
        {"format": "vmdk"},
    ],
)
def test_a_second_opinion_counts(told: dict[str, object]) -> None:
    good = {"format": "qcow2", "virtual-size": MIB, "format-specific": {"data": {"corrupt": False}}}
    assert objection(good, Shape("qcow2", 1, MIB)) is None
    assert objection({**good, **told}, Shape("qcow2", 1, MIB)) is not None


async def test_qemu_img_is_held_on_a_short_leash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qcow2(tmp_path / "i")
    with pytest.raises(QemuImgError):  # it may write nothing
        await qemu_img("create", "-f", "raw", str(tmp_path / "out"), "1M", limits=READS)
    monkeypatch.setattr(tool, "MEMORY", 16 * MIB)
    with pytest.raises(Unusable, match="qemu-img info refuses"):
        await inspected(tmp_path / "i")


async def test_words_of_an_image_are_printed_as_such(tmp_path: Path) -> None:
    with pytest.raises(QemuImgError) as caught:
        await qemu_img("info", str(tmp_path / "\x1b[31mred\x07"))
    assert str(caught.value).isprintable()


def slow(tmp_path: Path, limits: Limits) -> asyncio.Task[bytes]:
    """A copy of 16 MiB that takes a minute."""
    (tmp_path / "in").write_bytes(os.urandom(16 * MIB))
    copy = ("convert", "-r", "256k", "-f", "raw", "-O", "raw", str(tmp_path / "in"), str(tmp_path / "out"))
    return asyncio.create_task(qemu_img(*copy, limits=limits))


async def test_it_has_ended_when_the_caller_goes_on(tmp_path: Path) -> None:
    task = slow(tmp_path, Limits())
    [pid] = await eventually(lambda: children("qemu-img", str(tmp_path / "out")), "it runs")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)
    with pytest.raises(TimeoutError):
        await slow(tmp_path, Limits(seconds=0.3))
    assert not children("qemu-img", str(tmp_path / "out"))
    assert (tmp_path / "out").stat().st_blocks * 512 < 16 * MIB, "it was not waited for until all of its work was done"


async def test_one_that_says_more_than_anybody_reads_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio takes a process for ended once its pipes are read to their end."""
    (tmp_path / "qemu-img").write_text("#!/bin/sh\nyes | head -c 1000000\nexec sleep 600\n")
    (tmp_path / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    async def paused(self: asyncio.subprocess.Process, input: bytes | None = None) -> tuple[bytes, bytes]:
        if not held:
            held.append(self)
            await asyncio.Event().wait()
        return await communicate(self, input)

    held: list[asyncio.subprocess.Process] = []
    communicate = asyncio.subprocess.Process.communicate
    monkeypatch.setattr(asyncio.subprocess.Process, "communicate", paused)
    task = asyncio.create_task(qemu_img("info"))
    await eventually(lambda: held, "it runs")
    await asyncio.sleep(0.2)  # it fills the pipe, and what asyncio reads ahead
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(20):
            await task
    assert held[0].returncode == -signal.SIGKILL


async def test_an_end_from_outside_says_nothing_of_the_image(tmp_path: Path) -> None:
    task = slow(tmp_path, Limits())
    [pid] = await eventually(lambda: children("qemu-img", str(tmp_path / "out")), "it runs")
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(InterruptedError):
        await task


async def test_no_file_becomes_larger_than_it_may(tmp_path: Path) -> None:
    with pytest.raises(QemuImgError):
        await slow(tmp_path, Limits(file_bytes=MIB))
