"""Consoles stay small, whoever writes them, and nothing that is written later is lost."""

from pathlib import Path

from node_daemon.hypervisor.console_log import KEPT, MOST, parts, read, remove, trim, trim_all


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


def test_the_end_over_all_parts(tmp_path: Path) -> None:
    newest = tmp_path / "vm.log"
    assert read(newest, None, 10, 10) is None
    (tmp_path / "vm.log.1").write_bytes(b"aaaa")
    (tmp_path / "vm.log.0").write_bytes(b"bbbb")
    newest.write_bytes(b"cccc")
    for tail, most, expected, more in [
        (6, 100, b"bbcccc", False),
        (100, 100, b"aaaabbbbcccc", False),
        (100, 5, b"aaaab", True),
        (12, 12, b"aaaabbbbcccc", False),
        (8, 4, b"bbbb", True),
        (0, 100, b"", False),
    ]:
        piece = read(newest, None, tail, most)
        assert piece is not None
        assert (piece.data, piece.more) == (expected, more), (tail, most)


def test_piece_by_piece_is_the_whole_whatever_moves(tmp_path: Path) -> None:
    newest = tmp_path / "vm.log"
    newest.write_bytes(b"one two ")
    piece = read(newest, None, 100, 5)
    assert piece is not None
    whole = piece.data
    newest.rename(tmp_path / "vm.log.0")  # as virtlogd does
    newest.write_bytes(b"three ")
    while piece.more:
        piece = read(newest, piece.cursor, 0, 3)
        assert piece is not None
        whole += piece.data
    assert whole == b"one two three "
    at_the_end = piece.cursor
    with newest.open("ab") as file:
        file.write(b"four")
    piece = read(newest, at_the_end, 0, 100)
    assert piece is not None
    assert piece.data == b"four"

    newest.write_bytes(b"emptied")
    piece = read(newest, piece.cursor, 0, 100)
    assert piece is not None
    assert piece.data == b"emptied", "from its beginning"
    piece = read(newest, "1-5", 0, 100)
    assert piece is not None
    assert piece.data == b"one two emptied", "what a cursor led to is gone: all there is"
