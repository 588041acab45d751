"""The image cache on real files, a real HTTP server and the real qemu-img."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from domain.contract import ImageSource
from node_daemon.failure import Permanent, Temporary
from node_daemon.storage.base_image import ImageBase
from tests.hostile_images import HOSTILE
from tests.image_server import Images, serving
from tests.node_daemon.documents import MIB, qcow2_image, raw_image, source_of


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path / "images", [tmp_path])


async def code_of(images: Images, source: ImageSource) -> str:
    with pytest.raises(Permanent) as caught:
        await images.ensure(source)
    return caught.value.code


@pytest.mark.parametrize("make", [raw_image, qcow2_image])
async def test_from_a_path(tmp_path: Path, make: Callable[[Path, int], ImageSource]) -> None:
    source = make(tmp_path / "i", 3 * MIB)
    images = Images(tmp_path / "images", [tmp_path], base="source")
    base = await images.ensure(source)
    assert base.path == tmp_path / "images" / f"{source.sha256}.{source.format}"
    assert base.path.read_bytes() == Path(source.source).read_bytes()
    assert base.virtual_bytes == 3 * MIB
    Path(source.source).unlink()
    assert await images.ensure(source) == base, "it is fetched once"
    assert await Images(tmp_path / "images", [tmp_path], base="source").ensure(source) == base, "over restarts too"


async def test_from_http_once_for_all_who_ask(tmp_path: Path, images: Images) -> None:
    path = tmp_path / "i.raw"
    raw_image(path, 5 * MIB)
    async with serving() as server:
        server.body = path.read_bytes()
        source = source_of(path, "raw", 5 * MIB, at=server.url)
        found = await asyncio.gather(*(images.ensure(source) for _ in range(5)))
    assert len(server.requests) == 1
    assert {base.path.read_bytes() for base in found} == {server.body}


async def test_one_who_leaves_does_not_spoil_it_for_the_others(tmp_path: Path, images: Images) -> None:
    source = raw_image(tmp_path / "i.raw", 20 * MIB)
    impatient = asyncio.create_task(images.ensure(source))
    patient = asyncio.create_task(images.ensure(source))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).path.stat().st_size == 20 * MIB


async def test_a_wrong_checksum_leaves_nothing(tmp_path: Path, images: Images) -> None:
    source = raw_image(tmp_path / "i.raw").model_copy(update={"sha256": "0" * 64})
    assert await code_of(images, source) == "checksum_mismatch"
    assert list((tmp_path / "images").iterdir()) == []


async def test_more_than_was_registered_is_not_read_to_its_end(tmp_path: Path, images: Images) -> None:
    source = raw_image(tmp_path / "i.raw", 9 * MIB).model_copy(update={"size_bytes": MIB})
    assert await code_of(images, source) == "checksum_mismatch"
    assert list((tmp_path / "images").iterdir()) == []


async def test_missing(tmp_path: Path, images: Images) -> None:
    source = raw_image(tmp_path / "i.raw")
    gone = source.model_copy(update={"source": str(tmp_path / "nowhere")})
    assert await code_of(images, gone) == "image_missing"
    async with serving() as server:
        server.status = "404 Not Found"
        assert await code_of(images, source.model_copy(update={"source": server.url})) == "image_missing"


async def test_what_may_pass_is_tried_again(tmp_path: Path, images: Images) -> None:
    path = tmp_path / "i.raw"
    raw_image(path)
    async with serving() as server:
        server.body = path.read_bytes()
        source = source_of(path, "raw", MIB, at=server.url)
        server.cut = MIB // 2
        with pytest.raises(Temporary):
            await images.ensure(source)
        server.cut, server.status = None, "503 Service Unavailable"
        with pytest.raises(Temporary):
            await images.ensure(source)
        server.status = "200 OK"
        assert (await images.ensure(source)).path.exists()
    with pytest.raises(Temporary):
        await Images(tmp_path / "other", [tmp_path]).ensure(source)  # nobody listens any more


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_must_not_be_used_leaves_nothing(tmp_path: Path, images: Images, name: str) -> None:
    path = tmp_path / "i"
    make, said = HOSTILE[name]
    make(path)
    declared = "qcow2" if path.read_bytes().startswith(b"QFI") else "raw"
    with pytest.raises(Permanent, match=said) as caught:
        await images.ensure(source_of(path, declared, MIB))
    assert caught.value.code == "image_invalid"
    assert list((tmp_path / "images").iterdir()) == []


async def test_only_files_of_the_allowed_folders(tmp_path: Path) -> None:
    source = raw_image(tmp_path / "i.raw")
    assert await code_of(Images(tmp_path / "images", [tmp_path / "allowed"]), source) == "image_not_allowed"
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "i.raw")
    link = source.model_copy(update={"source": str(tmp_path / "allowed" / "link")})
    assert await code_of(Images(tmp_path / "images", [tmp_path / "allowed"]), link) == "image_not_allowed"


async def test_the_format_is_the_declared_one(tmp_path: Path, images: Images) -> None:
    raw = raw_image(tmp_path / "i.raw").model_copy(update={"format": "qcow2"})
    assert await code_of(images, raw) == "image_invalid"
    qcow2 = qcow2_image(tmp_path / "i.qcow2").model_copy(update={"format": "raw"})
    assert await code_of(images, qcow2) == "image_invalid"
    broken = tmp_path / "broken.qcow2"
    broken.write_bytes(b"QFI\xfb" + os.urandom(512))
    assert await code_of(images, source_of(broken, "qcow2", MIB)) == "image_invalid"


async def test_a_start_clears_what_a_crash_left(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / f"{'a' * 64}.raw.{'b' * 32}.part").write_bytes(b"half")
    (folder / "somebody-else.part").write_bytes(b"not ours")
    Images(folder, [])
    assert [path.name for path in folder.iterdir()] == ["somebody-else.part"]


@pytest.mark.parametrize("make", [raw_image, qcow2_image])
@pytest.mark.parametrize("kept", ["raw", "source"])
@pytest.mark.parametrize("size", [0, 512, MIB])
async def test_what_was_cut_is_fetched_again_like_what_is_gone(
    tmp_path: Path, make: Callable[[Path, int], ImageSource], kept: ImageBase, size: int
) -> None:
    source = make(tmp_path / "i", 2 * MIB)
    images = Images(tmp_path / "images", [tmp_path], base=kept)
    base = await images.ensure(source)
    whole = base.path.read_bytes()
    os.truncate(base.path, min(size, len(whole) - 1))
    await images.ensure_under(source, base.format)
    assert base.path.read_bytes() == whole
    os.truncate(base.path, min(size, len(whole) - 1))
    assert (await Images(tmp_path / "images", [tmp_path], base=kept).ensure(source)).path.read_bytes() == whole
