"""Sealed copies: who can read them, how many there are, how old they get, and what a process after a crash finds."""

import base64
import os
import time
from pathlib import Path

import pytest

from projections.guest_data import copies as module
from projections.guest_data.copies import Copies, name_of

SECRET, OTHER = "s" * 32, "o" * 32
CLEAR = b'{"user_data": "a password of the guest"}'


def test_only_who_has_the_secret_can_read_a_copy(tmp_path: Path) -> None:
    Copies(tmp_path).put(SECRET, CLEAR)
    [file] = tmp_path.iterdir()
    assert file.name == name_of(SECRET)
    stored = file.read_bytes()
    for shown in (SECRET.encode(), CLEAR, b"password", base64.b64encode(CLEAR), module.key_of(SECRET)):
        assert shown not in stored
    again = Copies(tmp_path)
    assert again.get(SECRET) == CLEAR
    assert again.get(OTHER) is None
    file.rename(tmp_path / name_of(OTHER))  # in the place of another one
    assert Copies(tmp_path).get(OTHER) is None


@pytest.mark.parametrize("spoil", [b"", b"half", None])
def test_what_a_crash_left_is_no_copy(tmp_path: Path, spoil: bytes | None) -> None:
    Copies(tmp_path).put(SECRET, CLEAR)
    file = tmp_path / name_of(SECRET)
    stored = bytearray(file.read_bytes())
    stored[-1] ^= 1
    file.write_bytes(bytes(stored) if spoil is None else spoil)
    (tmp_path / f"{name_of(OTHER)}.new").write_bytes(b"not finished")
    found = Copies(tmp_path)
    assert found.get(SECRET) is None
    assert [each.name for each in tmp_path.iterdir()] == [name_of(SECRET)]
    found.put(SECRET, CLEAR)
    assert Copies(tmp_path).get(SECRET) == CLEAR


def test_there_is_a_bounded_number_of_them(tmp_path: Path) -> None:
    some = Copies(tmp_path, most=3)
    for number in range(5):
        some.put(f"{number}" * 32, CLEAR)
    assert [some.get(f"{number}" * 32) is not None for number in range(5)] == [False, False, True, True, True]
    some.put("2" * 32, CLEAR)  # confirmed
    some.put("5" * 32, CLEAR)
    assert [some.get(f"{number}" * 32) is not None for number in range(6)] == [False, False, True, False, True, True]
    assert len(list(tmp_path.iterdir())) == len(some) == 3
    assert len(Copies(tmp_path, most=2)) == len(list(tmp_path.iterdir())) == 2


def test_they_take_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    some = Copies(tmp_path, most_bytes=10_000)
    for number in range(5):
        some.put(f"{number}" * 32, b"x" * 3000)
    assert [some.get(f"{number}" * 32) is not None for number in range(5)] == [False, False, True, True, True]
    some.put("4" * 32, b"y" * 9000)
    assert (len(some), some.get("4" * 32)) == (1, b"y" * 9000)
    some.put("9" * 32, b"z" * 11_000)
    assert (len(some), list(tmp_path.iterdir())) == (0, [])


def test_one_that_nobody_confirms_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = Copies(tmp_path)
    for secret in (SECRET, OTHER):
        some.put(secret, CLEAR)
    before = time.time() - module.OLDEST - 1
    os.utime(tmp_path / name_of(SECRET), (before, before))
    found = Copies(tmp_path)
    assert (found.get(SECRET), found.get(OTHER)) == (None, CLEAR)
    assert [each.name for each in tmp_path.iterdir()] == [name_of(OTHER)]
    later = time.time() + module.OLDEST - 1
    monkeypatch.setattr(time, "time", lambda: later)
    found.put(OTHER, CLEAR)  # confirmed, and written down
    monkeypatch.setattr(time, "time", lambda: later + 3)
    assert found.get(OTHER) == Copies(tmp_path).get(OTHER) == CLEAR
    monkeypatch.setattr(time, "time", lambda: later + module.OLDEST + 1)
    assert found.get(OTHER) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_used_costs_the_copies_nothing(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", None):
        some = Copies(folder)
        some.put(SECRET, CLEAR)
        assert some.get(SECRET) == CLEAR
        some.remove([name_of(SECRET)])
        assert some.get(SECRET) is None
    assert list(tmp_path.iterdir()) == []


def test_one_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    Copies(tmp_path).put(SECRET, CLEAR)
    (tmp_path / name_of(OTHER)).symlink_to(tmp_path / "nowhere")
    assert Copies(tmp_path).get(SECRET) == CLEAR
    assert [each.name for each in tmp_path.iterdir()] == [name_of(SECRET)]
