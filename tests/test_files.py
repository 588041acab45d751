"""Files that are whole or not at all, and locks that one process holds."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.files.files import put, put_in_place, put_once
from runtime.files.lock import Held, lock, turn


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_has_its_content_and_mode_and_nothing_is_left_beside_it(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "admin.token"
    put(path, "secret\n", durable=durable)
    assert (path.read_text(), mode(path)) == ("secret\n", 0o600)
    os.umask(0o022)
    put(path, b"public", 0o666, durable=durable)
    assert (path.read_bytes(), mode(path)) == (b"public", 0o644), "the umask counts"
    assert [each.name for each in tmp_path.iterdir()] == ["admin.token"]


def test_what_is_right_already_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "nats.port"
    put(path, "4222")
    before = path.stat().st_ino
    put(path, "4222")
    assert path.stat().st_ino == before
    path.chmod(0o644)
    put(path, "4222")
    assert mode(path) == 0o600


@pytest.mark.parametrize("failing", ["fsync", "fdopen"])
def test_what_fails_half_way_leaves_the_file_as_it_was(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "master.key"
    put(path, "old")

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, failing, fails)
    with pytest.raises(OSError, match="Input/output"):
        put(path, "new")
    with pytest.raises(OSError, match="Input/output"):
        put_once(tmp_path / "another", b"new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["master.key"]


def test_content_is_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    put(tmp_path / "a", "x")
    assert steps == ["file", "rename", "folder"]
    steps.clear()
    (tmp_path / "part").write_text("x")
    put_in_place(tmp_path / "part", tmp_path / "b", 0o400)
    assert steps == ["file", "rename", "folder"]
    assert mode(tmp_path / "b") == 0o400
    steps.clear()
    put(tmp_path / "c", "x", durable=False)
    assert steps == ["rename"]


def test_of_two_that_make_a_file_once_the_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "master.key"
    put_once(path, b"first")
    put_once(path, b"second")
    assert (path.read_bytes(), mode(path)) == (b"first", 0o600)
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "up.lock"
    with lock(path), pytest.raises(Held) as held:
        lock(path)
    assert held.value.holder == str(os.getpid())
    program = "import sys; from pathlib import Path; from runtime.files.lock import lock; lock(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, path], check=True)
    with lock(path, wait=True):
        assert path.read_text() == str(os.getpid())


async def test_a_turn_comes_when_the_other_is_done(tmp_path: Path) -> None:
    async def taken() -> None:
        async with turn(tmp_path / "lock"):
            pass

    with lock(tmp_path / "lock"):
        task = asyncio.create_task(taken())
        assert not (await asyncio.wait([task], timeout=0.05))[0]
    await asyncio.wait_for(task, 30)
