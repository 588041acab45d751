"""What is kept of images: as long as it is wanted and there is room, at no cost where the file is there anyway."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from domain.contract import Fetch
from handlers.images import store as store_module
from handlers.images.reading import Reader
from handlers.images.store import GRACE, ImageStore
from tests.domain.test_image import VERIFYING
from tests.handlers.platform import raw_disk
from tests.hostile_images import MIB
from tests.image_server import LOOPBACK, serving

DISK = raw_disk(MIB) + os.urandom(MIB)
A, B, C = (letter * 64 for letter in "abc")


def put(store: ImageStore, folder: Path, sha256: str, age: float = 0.0) -> Path:
    """Keep something of 1 MiB; the time of its last use lies so far back."""
    file = folder / f"of-{sha256[:1]}"
    file.write_bytes(os.urandom(MIB))
    os.utime(file, (file.stat().st_atime - age, file.stat().st_mtime - age))
    with file.open("rb", buffering=0) as opened:
        store.keep(opened, sha256, True)
    file.unlink()
    return file


def have(tmp_path: Path) -> set[str]:
    return {path.name[:1] for path in (tmp_path / "store").iterdir()}


def test_the_least_recently_used_go_first_and_never_what_a_vm_is_made_from(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store", 2 * MIB, lambda: {A})
    for sha256, age in ((A, 3 * GRACE), (B, 2 * GRACE), (C, 0.0)):
        put(store, tmp_path, sha256, age)
    assert have(tmp_path) == {"a", "b", "c"}, "they wait for their verdict"
    store.tidy({A, B, C})
    assert have(tmp_path) == {"a", "c"}
    store.tidy({C})
    assert have(tmp_path) == {"c"}, "what is in the catalogue no more goes at once"


def test_what_a_node_asks_for_is_used(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store", MIB)
    for sha256 in (A, B):
        put(store, tmp_path, sha256, 2 * GRACE)
    store.touch(A)
    store.tidy({A, B})
    assert have(tmp_path) == {"a"}


def test_what_is_larger_than_all_of_it_is_not_kept(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store", MIB // 2)
    put(store, tmp_path, A)
    assert have(tmp_path) == set()


def test_an_import_that_needs_the_room_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(tmp_path / "store")
    for sha256, age in ((A, 3 * GRACE), (B, 2 * GRACE)):
        put(store, tmp_path, sha256, age)
    store.tidy({A, B})
    monkeypatch.setattr(store_module, "room", lambda _: MIB)
    store.make_room(MIB)
    assert have(tmp_path) == {"a", "b"}
    store.make_room(MIB + 1)
    assert have(tmp_path) == {"b"}


def test_a_file_that_has_another_name_costs_nothing_and_stays(tmp_path: Path) -> None:
    """And it outlives that name."""
    file = tmp_path / "own.raw"
    file.write_bytes(DISK)
    os.utime(file, (0, 0))
    store = ImageStore(tmp_path / "store", 2 * MIB)
    with file.open("rb", buffering=0) as opened:
        store.keep(opened, A, False)
    put(store, tmp_path, B, 2 * GRACE)
    store.tidy({A, B})
    store.touch(A)
    assert file.stat().st_mtime == 0, "its times are somebody else's"
    if file.stat().st_nlink == 2:  # else the file system shares the blocks
        assert have(tmp_path) == {"a", "b"}
    file.unlink()
    kept = store.open(A)
    assert kept is not None
    with kept:
        assert kept.read() == DISK


@pytest.mark.parametrize("name", ["", "..", "../store", "/etc/passwd", A[:-1], A.upper(), f"{A}\n", f"{A}\0", "é" * 64])
def test_a_digest_is_a_digest(tmp_path: Path, name: str) -> None:
    assert ImageStore(tmp_path / "store").open(name) is None


def test_a_folder_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store", 1)
    (tmp_path / "store").rmdir()
    store.tidy({A})
    store.make_room(2**60)
    assert store.open(A) is None
    store = ImageStore(tmp_path / "store")
    (tmp_path / "store").rmdir()
    put(store, tmp_path, A)
    assert have(tmp_path) == {"a"}


def test_only_what_is_ours_is_touched(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for name in ("README", f"{A}.qcow2", f"{B}.new"):
        (tmp_path / "store" / name).write_bytes(b"x")
    (tmp_path / "store" / C).symlink_to("/etc/passwd")
    store = ImageStore(tmp_path / "store", 1)
    store.tidy(set())
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"README", f"{A}.qcow2", C}
    with pytest.raises(OSError, match="symbolic"):
        store.open(C)


async def test_what_was_judged_is_kept_before_anybody_hears_of_it(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    reader = Reader(tmp_path / "imports", [tmp_path], LOOPBACK, store)
    async with serving(DISK) as server:
        said: dict[str, Any] = {"source": server.url, "sha256": None, "sha512": None}
        image = dataclasses.replace(VERIFYING.after, **said)
        await reader.facts(dataclasses.replace(image, fetch=Fetch.SOURCE), lambda *_: None)
        assert have(tmp_path) == set(), "its nodes ask the source"
        facts = await reader.facts(image, lambda *_: None)
        store.tidy(set())
        assert have(tmp_path) == {facts.sha256[:1]}, "its verdict is on the way"
        server.status = "403 Forbidden"
        assert await reader.facts(image, lambda *_: None) == facts, "killed before the verdict: nothing is asked again"
    reader.sweep(())
    kept = store.open(facts.sha256)
    assert kept is not None
    with kept:
        assert kept.read() == DISK
    assert facts.sha256 == hashlib.sha256(DISK).hexdigest()
