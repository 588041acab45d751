"""qemu-img parses foreign files without rights: looked at in the child itself."""

import json
import os
import shutil
from pathlib import Path

import pytest

from node_daemon.storage.base_image import BaseImage
from node_daemon.storage.conversion import convert, most_bytes
from node_daemon.storage.disks import GIB, Disks
from runtime.images.disk_image import Unusable
from runtime.images.inspection import inspect
from runtime.images.qemu_img import USER, qemu_img
from runtime.unprivileged import account
from tests.hostile_images import MIB, qcow2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")

STATUS = """#!/bin/sh
cat /proc/self/status > {told}
exec {real} "$@"
"""
#: One that may not write to any file says it in its last words.
WORDS = """#!/bin/sh
tr '\\n\\t' '; ' < /proc/self/status >&2
exit 1
"""


@pytest.fixture
def status(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the last child said of itself."""
    real, told = shutil.which("qemu-img"), open_folder / "status"
    told.touch()
    told.chmod(0o666)
    (open_folder / "qemu-img").write_text(STATUS.format(told=told, real=real))
    (open_folder / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", f"{open_folder}:{os.environ['PATH']}")
    return told


def said(status: Path) -> dict[str, list[str]]:
    lines = [line.split(":", 1) for line in status.read_text().splitlines()]
    return {name: value.split() for name, value in lines}


def without_rights(status: Path) -> None:
    user = account(USER)
    assert user is not None
    found = said(status)
    assert found["Uid"] == [str(user.uid)] * 4
    assert found["Gid"] == [str(user.gid)] * 4
    assert found["Groups"] == []
    assert found["NoNewPrivs"] == ["1"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[name][0], 16) == 0


async def test_when_an_image_is_looked_at(tmp_path: Path, status: Path) -> None:
    qcow2(tmp_path / "i")
    (status.parent / "qemu-img").write_text(WORDS)
    user = account(USER)
    assert user is not None
    with (tmp_path / "i").open("rb") as file, pytest.raises(Unusable, match=f"Uid: {user.uid} {user.uid} "):
        await inspect(file)


async def test_when_an_image_is_converted(tmp_path: Path, status: Path) -> None:
    qcow2(tmp_path / "i")
    with (tmp_path / "i").open("rb") as file:
        most = await most_bytes(file, 8 * MIB)
        await convert(file, 8 * MIB, tmp_path / "raw", most, lambda *_: None)
    without_rights(status)
    made = (tmp_path / "raw").stat()
    assert (made.st_uid, made.st_gid, made.st_size) == (0, 0, 8 * MIB)


async def test_our_own_files_are_made_with_our_own_rights(tmp_path: Path, status: Path) -> None:
    await qemu_img("create", "-f", "raw", str(tmp_path / "own"), "1M")
    assert said(status)["Uid"] == ["0"] * 4
    assert said(status)["NoNewPrivs"] == ["1"]


async def test_when_the_disk_of_a_vm_grows(tmp_path: Path, status: Path) -> None:
    """Its base is not opened either, which only we may read; what it says of it stays."""
    base, disks = tmp_path / "base", Disks(tmp_path)
    await qemu_img("create", "-q", "-f", "qcow2", os.fspath(base), "1G")
    base.chmod(0o600)
    await disks.ensure("a-vm", BaseImage(base, "qcow2", GIB), 1)
    before = json.loads(await qemu_img("info", "--output=json", os.fspath(disks.disk("a-vm"))))
    await disks.grow("a-vm", 2)
    without_rights(status)
    after = json.loads(await qemu_img("info", "--output=json", os.fspath(disks.disk("a-vm"))))
    assert (before["virtual-size"], after["virtual-size"]) == (GIB, 2 * GIB)
    assert after["full-backing-filename"] == before["full-backing-filename"] == os.fspath(base)
    assert after["backing-filename-format"] == "qcow2"
    kept = disks.disk("a-vm").stat()
    assert (kept.st_uid, kept.st_gid, kept.st_mode & 0o777) == (os.geteuid(), os.getegid(), 0o600)
    await disks.grow("a-vm", 1)
    assert disks.disk("a-vm").stat().st_uid == os.geteuid()
