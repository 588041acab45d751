"""Files that are named on the command line and cannot be used: one plain sentence, status 2, nothing sent."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.files.unusable import sentence
from tests.cli.conftest import Nebula
from tests.cli.fake import Platform

BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "missing", "does not exist"),
    "a folder": (lambda folder: folder, "is a folder, not a file"),
    "below a file": (lambda folder: folder / "text" / "below", "a part of the path is not a folder"),
    "a circle": (lambda folder: folder / "circle", "its symbolic links form a loop"),
    "a long name": (lambda folder: folder / ("n" * 300), "the name is too long"),
}
READ = [
    ("verify", "log", "--no-key", "--against", "FILE"),
    ("verify", "log", "--key", "FILE"),
    ("verify", "file", "--no-key", "FILE"),
    ("verify", "file", "--key", "FILE", "text"),
    ("import", "--no-key", "FILE"),
    ("vm", "create", "x", "--image", "i", "--ssh-key", "FILE"),
    ("vm", "create", "x", "--image", "i", "--user-data", "FILE"),
    ("vm", "rebuild", "web-1", "--user-data", "FILE"),
    ("project", "create", "p", "--ssh-key", "FILE"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = tmp_path / "files"
    made.mkdir()
    (made / "text").write_text("text")
    (made / "bytes").write_bytes(b"\xff\xfe\xfd\x00\x80")
    (made / "circle").symlink_to(made / "circle")
    monkeypatch.chdir(made)
    yield made


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("command", READ, ids=" ".join)
def test_a_file_that_cannot_be_read(
    command: tuple[str, ...], what: str, nebula: Nebula, platform: Platform, folder: Path
) -> None:
    platform.add_vm("web-1")
    make, words = BAD[what]
    ran = nebula(*(str(make(folder)) if word == "FILE" else word for word in command))
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1 + ("--key" in command)), ran.err
    assert words in ran.err
    may_be_a_key = "--ssh-key" in command and what == "a long name"
    assert (str(make(folder)) in ran.err) is not may_be_a_key
    assert "Errno" not in ran.err
    assert {method for method, *_ in platform.requests} <= {"GET"}


@pytest.mark.parametrize("command", [("verify", "log", "--key"), ("vm", "create", "x", "--image", "i", "--ssh-key")])
def test_a_file_of_text_that_is_none(command: tuple[str, ...], nebula: Nebula, folder: Path) -> None:
    ran = nebula(*command, str(folder / "bytes"))
    assert (ran.status, ran.out) == (2, "")
    assert str(folder / "bytes") in ran.err.splitlines()[0]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("export", "missing/file"), "missing is not a folder"),
        (("export", "text/file"), "text is not a folder"),
        (("export", "text"), "text exists already"),
        (("export", "."), ". exists already"),
        (("schemas", "text"), "text exists already"),
        (("schemas", "text/below"), "a part of the path is not a folder"),
    ],
)
def test_a_file_that_cannot_be_written(command: tuple[str, ...], words: str, nebula: Nebula, folder: Path) -> None:
    ran = nebula(*command)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
    assert words in ran.err


@pytest.mark.parametrize("name", ["admin.token", "api.url"])
def test_a_token_that_is_no_text_is_none(name: str, nebula: Nebula, tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text("t")
    (tmp_path / name).write_bytes(b"\xff\xfe")
    assert "Traceback" not in nebula("vm", "list").err


def test_what_the_system_says_of_no_path_has_no_path() -> None:
    assert sentence(OSError(5, "Input/output error"), Path("/x")) == "/x cannot be used: input/output error"
    assert sentence(OSError(5, "Input/output error")) == "cannot be used: input/output error"
