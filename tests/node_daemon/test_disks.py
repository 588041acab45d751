"""A VM's files, made by the real qemu-img."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.contract import SeedMedium
from node_daemon.failure import Permanent, Temporary
from node_daemon.storage.base_image import BaseImage
from node_daemon.storage.disks import GIB, Disks
from node_daemon.storage.folder import Occupied, hold, impassable
from runtime.images.qemu_img import qemu_img
from tests.node_daemon.documents import MIB, raw_image


@pytest.fixture
def base(tmp_path: Path) -> BaseImage:
    raw_image(tmp_path / "base.raw")
    return BaseImage(tmp_path / "base.raw", "raw", MIB)


async def test_an_overlay_of_the_asked_size(tmp_path: Path, base: BaseImage) -> None:
    disks = Disks(tmp_path / "data")
    assert await disks.ensure("vm", base, 2)
    path = tmp_path / "data" / "disks" / "vm" / "root.qcow2"
    assert disks.disk("vm") == path
    info = json.loads(await qemu_img("info", "--output=json", str(path)))
    assert info["virtual-size"] == 2 * GIB
    assert info["backing-filename"] == str(base.path)
    assert info["backing-filename-format"] == "raw"


async def test_a_disk_that_is_there_is_never_made_anew(tmp_path: Path, base: BaseImage) -> None:
    disks = Disks(tmp_path)
    await disks.ensure("vm", base, 1)
    disks.disk("vm").write_bytes(b"data of a guest")
    assert not await disks.ensure("vm", base, 1)
    assert disks.disk("vm").read_bytes() == b"data of a guest"


async def test_a_disk_grows_and_never_shrinks(tmp_path: Path, base: BaseImage) -> None:
    disks = Disks(tmp_path)
    await disks.ensure("vm", base, 1)

    async def size() -> int:
        info = json.loads(await qemu_img("info", "--output=json", str(disks.disk("vm"))))
        return int(info["virtual-size"]) // GIB

    for asked, has in ((1, 1), (3, 3), (3, 3), (2, 3)):
        await disks.grow("vm", asked)
        assert await size() == has
    disks.disk("vm").write_bytes(b"no disk")
    with pytest.raises(Temporary):
        await disks.grow("vm", 4)


async def test_earlier_disks_go_and_later_ones_never(tmp_path: Path, base: BaseImage) -> None:
    disks = Disks(tmp_path)
    for number in (1, 2, 3):
        assert await disks.ensure("vm", base, 1, number)
    disks.remove_earlier("vm", 2)
    disks.remove_earlier("vm", 2)
    assert [disks.disk("vm", number).exists() for number in (1, 2, 3)] == [False, True, True]
    await disks.grow("vm", 2, 3)
    disks.remove("vm")
    assert not disks.has_files("vm")


async def test_disks_of_another_series_are_counted_by_themselves(tmp_path: Path, base: BaseImage) -> None:
    disks = Disks(tmp_path)
    for number in (1, 2):
        assert await disks.ensure("vm", base, 1, number)
    for number in (2, 7, 12):
        assert await disks.ensure("vm", base, 1, number, "rescue")
    (tmp_path / "disks" / "vm" / "rescue-x.qcow2").touch()
    assert disks.disk("vm", 7, "rescue").name == "rescue-7.qcow2"
    assert disks.base("vm", 7, "rescue") == base.path
    disks.remove_earlier("vm", 12, "rescue")
    assert [disks.has_disk("vm", number, "rescue") for number in (2, 7, 12)] == [False, False, True]
    assert (disks.has_disk("vm", 1), disks.has_disk("vm", 2)) == (True, True)
    disks.remove_earlier("vm", 2)
    assert (disks.has_disk("vm", 1), disks.has_disk("vm", 2), disks.has_disk("vm", 12, "rescue")) == (False, True, True)
    disks.remove_earlier("nobody", 9, "rescue")
    disks.remove("vm")
    assert not disks.has_files("vm")


async def test_smaller_than_the_image(tmp_path: Path) -> None:
    disks = Disks(tmp_path)
    with pytest.raises(Permanent) as caught:
        await disks.ensure("vm", BaseImage(tmp_path / "b", "qcow2", 2 * GIB + 1), 2)
    assert caught.value.code == "disk_too_small"
    assert "3 GiB" in caught.value.detail
    assert not disks.has_files("vm")


async def test_a_seed_is_removed_with_the_folder_that_was_made_for_it(tmp_path: Path, base: BaseImage) -> None:
    disks = Disks(tmp_path)
    for has_disk in (False, True):
        await disks.make_seed("vm", "http://192.0.2.1/secret/", SeedMedium.HTTP)
        if has_disk:
            await disks.ensure("vm", base, 2)
        disks.remove_seed("vm")
        assert (disks.has_seed("vm"), disks.has_files("vm")) == (False, has_disk)
    disks.remove_seed("nobody")


async def test_removed_with_console_and_folder(tmp_path: Path, base: BaseImage) -> None:
    disks = Disks(tmp_path)
    await disks.ensure("vm", base, 1)
    disks.console("vm").write_text("login:")
    disks.console("vm").with_name("vm.log.0").write_text("what virtlogd moved aside")
    assert disks.has_files("vm")
    disks.remove("vm")
    disks.remove("vm")
    assert list(disks.consoles.iterdir()) == []
    assert not disks.has_files("vm")
    assert list((tmp_path / "disks").iterdir()) == []


async def test_a_start_clears_what_a_crash_left(tmp_path: Path) -> None:
    half = tmp_path / "disks" / "vm" / "123.part"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    Disks(tmp_path)
    assert not half.exists()


def test_one_daemon_for_a_folder(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(Occupied):
        hold(tmp_path)
    hold(tmp_path).close()


def test_a_folder_on_the_way_that_qemu_cannot_pass(servers_home: Path) -> None:
    closed = servers_home / "closed"
    (closed / "data").mkdir(parents=True)
    assert impassable(closed / "data") is None
    closed.chmod(0o700)
    assert impassable(closed / "data") == closed


async def test_the_second_of_a_kind_is_a_copy(tmp_path: Path, base: BaseImage, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    async def counted(*arguments: str, **options: Any) -> bytes:
        made.append(arguments[0])
        return await qemu_img(*arguments, **options)

    monkeypatch.setattr("node_daemon.storage.disks.qemu_img", counted)
    disks = Disks(tmp_path / "node")
    other = replace(base, path=tmp_path / "other.raw")
    shutil.copy(base.path, other.path)
    for vm, image, size in (("a", base, 2), ("b", base, 2), ("c", base, 3), ("d", other, 2)):
        assert await disks.ensure(vm, image, size)
    assert made == ["create"] * 3
    assert disks.disk("a").read_bytes() == disks.disk("b").read_bytes()
    assert disks.disk("b").stat().st_mode & 0o777 == 0o600
    told = {vm: json.loads(await qemu_img("info", "--output=json", str(disks.disk(vm)))) for vm in "abcd"}
    assert [told[vm]["virtual-size"] >> 30 for vm in "abcd"] == [2, 2, 3, 2]
    assert [told[vm]["backing-filename"] for vm in "abcd"] == [str(base.path)] * 3 + [str(other.path)]
