"""Which files of a host may be named, and which ways around that there are not."""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.images.local_file import NotAllowed, open_file
from runtime.settings import NodeSettings

#: How often a file or a folder is exchanged while it is opened.
CHANGES = 300


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
        with open_file(f"{folder}/{name}", [folder.parent / "none", folder]) as file:
            assert file.read() == body


def test_the_allowed_folder_may_be_a_link(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    for way in (tmp_path / "link", folder):
        with open_file(str(way / "i.raw"), [tmp_path / "link"]) as file:
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
        open_file(source.replace("{}", str(folder)), [folder])


def test_links_out_of_the_folder(tmp_path: Path, folder: Path) -> None:
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "inner").symlink_to(folder / "i.raw")
    (folder / "way").symlink_to(tmp_path)
    (folder / "fd").symlink_to("/proc/self/fd/0")
    for name in ("link", "inner", "fd", "way/secret", "way/images/i.raw"):
        with pytest.raises(NotAllowed, match="symbolic link"):
            open_file(str(folder / name), [folder])


def test_what_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    names = ["fifo", "deep"]
    if os.geteuid() == 0:
        os.mknod(folder / "zero", 0o600 | 0o020000, os.makedev(1, 5))
        names.append("zero")
    for name in names:
        with pytest.raises(NotAllowed, match="not a regular file"):
            open_file(str(folder / name), [folder])
    with pytest.raises(FileNotFoundError):
        open_file(str(folder / "none"), [folder])


def test_by_default_only_what_is_meant_for_it(tmp_path: Path) -> None:
    settings = NodeSettings(home=tmp_path)
    assert settings.image_folders == (tmp_path / "images", tmp_path / "cache")
    assert NodeSettings(image_paths="/srv/a:/srv/b").image_folders == (Path("/srv/a"), Path("/srv/b"))
    for bad in ("", "/", "relative", "/a:", "/a::/b"):
        with pytest.raises(ValueError, match="absolute paths"):
            NodeSettings(image_paths=bad)


@contextmanager
def beside(change: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Makes a change again and again beside what the caller does; tells how often it was made."""
    over, made = threading.Event(), itertools.count(1)
    last = 0

    def run() -> None:
        nonlocal last
        while not over.is_set():
            change()
            last = next(made)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: last if thread.is_alive() else CHANGES
    finally:
        over.set()
        thread.join()


def test_a_file_that_is_replaced_meanwhile_is_the_old_one_or_the_new_one(folder: Path) -> None:
    bodies = itertools.cycle((b"image", b"other image"))

    def change() -> None:
        (folder / "new").write_bytes(next(bodies))
        (folder / "new").rename(folder / "i.raw")

    seen = set[bytes]()
    with beside(change) as changes:
        while changes() < CHANGES:
            with open_file(str(folder / "i.raw"), [folder]) as file:
                seen.add(file.read())
    assert seen == {b"image", b"other image"}


@pytest.mark.parametrize("name", ["deep/i.raw", "deep/deeper/i.raw"])
def test_a_way_that_becomes_a_link_meanwhile_leads_nowhere_else(folder: Path, name: str) -> None:
    """A folder on the way is exchanged for a link to what nobody may read."""
    hidden = folder.parent / "hidden"
    (hidden / "deeper").mkdir(parents=True)
    for place in (hidden, hidden / "deeper"):
        (place / "i.raw").write_bytes(b"secret")
    (folder / "deep" / "deeper").mkdir()
    (folder / "deep" / "deeper" / "i.raw").write_bytes(b"deep")

    def change() -> None:
        (folder / "deep").rename(folder / "aside")
        (folder / "deep").symlink_to(hidden)
        (folder / "deep").unlink()
        (folder / "aside").rename(folder / "deep")

    with beside(change) as changes:
        while changes() < CHANGES:
            with contextlib.suppress(NotAllowed, FileNotFoundError), open_file(str(folder / name), [folder]) as file:
                assert file.read() == b"deep"


def test_no_descriptor_is_left(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "i.raw")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("i.raw", "link", "deep", "none", "i.raw/x", "deep/none", "\0", "deep/\0"):
        with contextlib.suppress(NotAllowed, OSError):
            open_file(f"{folder}/{name}", [folder]).close()
    assert len(os.listdir("/proc/self/fd")) == before
