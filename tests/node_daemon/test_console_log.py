"""Consoles stay small, whoever writes them, and nothing that is written later is lost."""

from pathlib import Path

from node_daemon.console_log import KEPT, MOST, parts, remove, trim, trim_all


def test_parts_the_oldest_first(tmp_path: Path) -> None:
    newest = tmp_path / "vm.log"
    assert parts(newest) == []
    for name in ("vm.log", "vm.log.0", "vm.log.1", "vm.log.10", "vm.log.part", "other.log", "vm.log2"):
        (tmp_path / name).write_text(name)
    assert [path.name for path in parts(newest)] == ["vm.log.10", "vm.log.1", "vm.log.0", "vm.log"]
    remove(newest)
    remove(newest)
    assert {path.name for path in tmp_path.iterdir()} == {"vm.log.part", "other.log", "vm.log2"}


def test_a_file_that_is_too_large_is_moved_aside_under_its_writer(tmp_path: Path) -> None:
    newest = tmp_path / "vm.log"
    with newest.open("ab", buffering=0) as qemu:
        qemu.write(b"x" * MOST)
        assert not trim(newest)
        qemu.write(b"end")
        assert trim_all(tmp_path) == ["vm.log"]
        qemu.write(b"and on")
    aside = tmp_path / "vm.log.0"
    assert newest.read_bytes() == b"and on", "its writer appends"
    assert aside.stat().st_size == KEPT
    assert aside.read_bytes().endswith(b"xend")
    assert aside.stat().st_mode & 0o077 == 0
