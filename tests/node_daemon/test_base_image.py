"""In which form a base image is kept, and which form a disk was made from."""

import shutil
from pathlib import Path

import pytest

from node_daemon.storage.base_image import BaseImage, ImageBase
from node_daemon.storage.disks import Disks
from runtime.images.disk_image import Format
from runtime.images.qemu_img import qemu_img
from tests.image_server import Images
from tests.node_daemon.conversions import cache, image, names
from tests.node_daemon.documents import MIB, qcow2_image, raw_image

__all__ = ["cache"]


async def test_kept_as_it_came(tmp_path: Path, cache: Path) -> None:
    source = qcow2_image(tmp_path / "i.qcow2", 3 * MIB)
    base = await Images(cache, [tmp_path], base="source").ensure(source)
    assert base == BaseImage(cache / f"{source.sha256}.qcow2", "qcow2", 3 * MIB)
    assert base.path.read_bytes() == (tmp_path / "i.qcow2").read_bytes()
    assert names(cache) == [base.path.name]


@pytest.mark.parametrize("first", ["source", "raw"])
async def test_what_is_there_is_used_whatever_is_set(tmp_path: Path, cache: Path, first: ImageBase) -> None:
    source = image(tmp_path / "i.qcow2", data=MIB)
    base = await Images(cache, [tmp_path], base=first).ensure(source)
    (tmp_path / "i.qcow2").unlink()
    for kept in ("raw", "source"):
        assert await Images(cache, [], base=kept).ensure(source) == base
        assert names(cache) == [base.path.name], "there is no second copy"


async def test_both_are_there(tmp_path: Path, cache: Path) -> None:
    source = image(tmp_path / "i.qcow2", data=MIB)
    await Images(cache, [tmp_path]).ensure(source)
    shutil.copy(tmp_path / "i.qcow2", cache / f"{source.sha256}.qcow2")
    assert (await Images(cache, []).ensure(source)).format == "raw"
    assert (await Images(cache, [], base="source").ensure(source)).format == "qcow2"


@pytest.mark.parametrize("kept", ["raw", "source"])
@pytest.mark.parametrize("there", [(), ("raw",), ("qcow2",), ("raw", "qcow2")], ids=" ".join)
@pytest.mark.parametrize("made_from", ["raw", "qcow2"])
async def test_under_a_disk_is_what_it_was_made_from(
    tmp_path: Path, kept: ImageBase, there: tuple[Format, ...], made_from: Format
) -> None:
    """Whatever is set by now and whatever else is there."""
    source = image(tmp_path / "i.qcow2", data=MIB)
    disks, images = Disks(tmp_path), Images(tmp_path / "images", [tmp_path], base=kept)
    files: dict[Format, Path] = {"raw": tmp_path / "images" / f"{source.sha256}.raw"}
    files["qcow2"] = files["raw"].with_suffix(".qcow2")
    await qemu_img("convert", "-f", "qcow2", "-O", "raw", source.source, str(files["raw"]))
    shutil.copy(source.source, files["qcow2"])
    await disks.ensure("vm", BaseImage(files[made_from], made_from, MIB), 1)
    for form in set(files) - set(there):
        files[form].unlink()
    assert images.under(source, disks.base("vm")) == (files[made_from], made_from)


@pytest.mark.parametrize("named", [None, Path("/etc/shadow"), Path("/images/other.raw")])
def test_a_disk_cannot_name_another_file(tmp_path: Path, cache: Path, named: Path | None) -> None:
    qcow2, raw = qcow2_image(tmp_path / "i.qcow2"), raw_image(tmp_path / "i.raw")
    images = Images(cache, [])
    assert images.under(qcow2, named) == (cache / f"{qcow2.sha256}.raw", "raw")
    assert images.under(raw, named) == (cache / f"{raw.sha256}.raw", "raw")
    (cache / f"{qcow2.sha256}.qcow2").touch()
    assert images.under(qcow2, named) == (cache / f"{qcow2.sha256}.qcow2", "qcow2")
    moved = Path("/where/the/data/was/before") / f"{raw.sha256}.raw"
    assert images.under(raw, moved) == (cache / moved.name, "raw")
