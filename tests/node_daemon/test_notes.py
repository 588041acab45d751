"""Something small about each VM, in a file of its own."""

from pathlib import Path

from domain.base import Message
from node_daemon.notes import Notes


class Note(Message):
    count: int


def test_a_note_is_there_for_whoever_comes_next(tmp_path: Path) -> None:
    Notes(tmp_path / "notes", Note).write("a", Note(count=1))
    later = Notes(tmp_path / "notes", Note)
    assert (later.read("a"), later.read("b")) == (Note(count=1), None)
    later.forget("a")
    later.forget("b")
    assert later.read("a") is None and not list((tmp_path / "notes").iterdir())


def test_what_cannot_be_read_or_kept_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    notes = Notes(tmp_path, Note)
    assert notes.read("a") is None
    (tmp_path / "b.json").mkdir()
    notes.write("b", Note(count=1))
    assert notes.read("b") is None
