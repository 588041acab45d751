"""Which files of a host may be named, and which ways around that there are not."""

import os
from pathlib import Path

import pytest

from runtime.local_file import NotAllowed, opened
from runtime.settings import NodeSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    (folder / "i.raw").write_bytes(b"image")
    (folder / "deep" / "i.raw").write_bytes(b"deep")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


def test_what_is_allowed(folder: Path) -> None:
    for name, body in (("i.raw", b"image"), ("deep/i.raw", b"deep"), (".//i.raw", b"image")):
        with opened(f"{folder}/{name}", [folder.parent / "none", folder]) as file:
            assert file.read() == body


def test_the_allowed_folder_may_be_a_link(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    for way in (tmp_path / "link", folder):
        with opened(str(way / "i.raw"), [tmp_path / "link"]) as file:
            assert file.read() == b"image"


@pytest.mark.parametrize(
    "source",
    [
        "/etc/shadow",
        "{}/../secret",
        "{}/deep/../../secret",
        "{}-evil/i.raw",
        "{}",
        "/",
        "/{}/i.raw",
        "i.raw",
        "/proc/self/environ",
        "json:{}",
        "nbd:localhost:1",
    ],
)
def test_outside(folder: Path, source: str) -> None:
    evil = Path(f"{folder}-evil")
    evil.mkdir()
    (evil / "i.raw").write_bytes(b"evil")
    with pytest.raises(NotAllowed, match="NEBULA_IMAGE_PATHS"):
        opened(source.replace("{}", str(folder)), [folder])


def test_links_out_of_the_folder(tmp_path: Path, folder: Path) -> None:
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "inner").symlink_to(folder / "i.raw")
    (folder / "way").symlink_to(tmp_path)
    (folder / "fd").symlink_to("/proc/self/fd/0")
    for name in ("link", "inner", "fd", "way/secret", "way/images/i.raw"):
        with pytest.raises(NotAllowed, match="symbolic link"):
            opened(str(folder / name), [folder])


def test_what_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    names = ["fifo", "deep"]
    if os.geteuid() == 0:
        os.mknod(folder / "zero", 0o600 | 0o020000, os.makedev(1, 5))
        names.append("zero")
    for name in names:
        with pytest.raises(NotAllowed, match="not a regular file"):
            opened(str(folder / name), [folder])
    with pytest.raises(FileNotFoundError):
        opened(str(folder / "none"), [folder])


def test_by_default_only_what_is_meant_for_it(tmp_path: Path) -> None:
    settings = NodeSettings(home=tmp_path)
    assert settings.image_folders == (tmp_path / "images", tmp_path / "cache")
    assert NodeSettings(image_paths="/srv/a:/srv/b").image_folders == (Path("/srv/a"), Path("/srv/b"))
    for bad in ("", "/", "relative", "/a:", "/a::/b"):
        with pytest.raises(ValueError, match="absolute paths"):
            NodeSettings(image_paths=bad)
