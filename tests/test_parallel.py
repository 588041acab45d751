"""Tests that are run by forks: each once, with its report, whatever becomes of the fork."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parallel.files import Files
from tests.parallel.longest import LONGEST

ROOT = Path(__file__).parents[1]
#: Nothing but what this is about; one worker prints what all print.
CONFTEST = """
import os
from contextlib import contextmanager
from pathlib import Path
from tests.parallel.run import run

@contextmanager
def own():
    yield
    note("own ends")

def note(text):
    with (Path(__file__).parent / "notes").open("a") as file:
        file.write(f"{os.getpid()} {text}\\n")

def pytest_addoption(parser):
    parser.addoption("--workers", type=int, default=0)

def pytest_runtestloop(session):
    note("collected")
    run(session, session.config.option.workers, (), own)
    return True
"""


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "conftest.py").write_text(CONFTEST)
        (path / "pytest.ini").write_text("[pytest]\n")

    def pytest(self, *options: str, workers: int = 2) -> tuple[int, str]:
        """The status and what is printed."""
        command = [sys.executable, "-m", "pytest", "--workers", str(workers), "-q", "-ra", *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        environment.pop("PYTEST_CURRENT_TEST", None)
        done = subprocess.run(  # its status is part of the answer
            command, check=False, cwd=self.path, env=environment, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    def notes(self, text: str) -> list[str]:
        """The process ids that noted this, in order."""
        lines = [line.split(" ", 1) for line in (self.path / "notes").read_text().splitlines()]
        return [pid for pid, said in lines if said == text]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_reports_are_those_of_tests_in_one_process(folder: Folder) -> None:
    (folder.path / "test_a.py").write_text("""
import pytest, sys, warnings
from conftest import note

@pytest.fixture(scope="module")
def shared():
    note("up")
    yield
    note("down")

@pytest.fixture
def broken():
    yield
    raise ValueError("broken in the end")

def test_passes(shared): note("passes")
def test_fails(shared):
    print("said before")
    assert 1 == 2
def test_is_left_out(): pytest.skip("no reason")
def test_ends_badly(broken): pass
def test_warns(): warnings.warn("mind the gap")
def test_has_a_folder(tmp_path): (tmp_path / "x").touch()
""")
    (folder.path / "test_b.py").write_text("def test_has_a_folder(tmp_path): (tmp_path / 'x').touch()\n")
    status, said = folder.pytest()
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 5 passed, 1 skipped, 1 warning, 1 error" in said
    for text in (
        *("said before", "assert 1 == 2", "broken in the end", "mind the gap", "no reason"),
        *("FAILED test_a.py::test_fails", "ERROR test_a.py::test_ends_badly"),
    ):
        assert text in said, text
    assert len(folder.notes("collected")) == 1
    assert folder.notes("up") == folder.notes("down") == folder.notes("passes") != folder.notes("collected")
    assert len(set(folder.notes("own ends"))) == 2
    status, said = folder.pytest("--last-failed")
    assert "1 failed, 1 passed, 1 error" in said


def test_a_worker_that_dies_fails_its_test_alone(folder: Folder) -> None:
    (folder.path / "test_a.py").write_text("""
import os, signal
from conftest import note

def test_first(): note("first")
def test_kills(): os.kill(os.getpid(), signal.SIGKILL)
def test_last(): note("last")
""")
    (folder.path / "test_b.py").write_text("import os\ndef test_ends(): os._exit(0)\n")
    (folder.path / "test_c.py").write_text("from conftest import note\ndef test_c(): note('c')\n")
    status, said = folder.pytest()
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "2 failed, 3 passed" in said
    assert "ended, with status -9" in said and "ended, with status 0" in said
    assert [len(folder.notes(name)) for name in ("first", "last", "c")] == [1, 1, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_it_stops_at_the_first_failure_and_takes_down_what_is_there(folder: Folder, workers: int) -> None:
    (folder.path / "test_a.py").write_text("def test_fails(): raise ValueError\ndef test_never(): pass\n")
    (folder.path / "test_b.py").write_text("""
import pytest, time
from conftest import note

@pytest.fixture(scope="session")
def server():
    note("up")
    yield
    note("down")

def test_lasts(server): time.sleep(600)
""")
    status, said = folder.pytest("-x", workers=workers)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "stopping after 1 failures" in said
    if workers == 2 and folder.notes("up"):
        assert folder.notes("up") == folder.notes("down")


# ── who runs which file ─────────────────────────────────────────────────────────────────────────────────────────────


def test_files_that_take_long_exist() -> None:
    assert len(set(LONGEST)) == len(LONGEST)
    assert [file for file in LONGEST if not (ROOT / "tests" / file).is_file()] == []


def test_files_are_taken_in_order() -> None:
    files = Files({"a/1": [0, 1], "b/1": [2], "b/2": [3], "a/2": [4]}, ())
    assert [files.take(0), files.take(1), files.take(0), files.take(1), files.take(0)] == [[0, 1], [2], [4], [3], []]


def test_long_files_come_first_but_not_behind_a_long_test() -> None:
    files = Files({"a/1": [0], "b/1": [1], "c/1": [2], "d/1": [3], "d/2": [4]}, {"a/1", "b/1", "c/1"})
    assert [files.take(0), files.take(0)] == [[0], [3]]
    assert [files.take(1), files.take(0)] == [[1], [2]]
    assert [files.take(0), files.take(1)] == [[4], []]


def test_what_is_expensive_to_start_has_one_worker() -> None:
    names = ["tests/console/a", "b", "tests/console/c", "d", "tests/console/e"]
    files = Files({name: [number] for number, name in enumerate(names)}, ())
    assert [files.take(0), files.take(1), files.take(0)] == [[0], [1], [2]]
    assert [files.take(1), files.take(1)] == [[3], [4]], "others help in the end"
    assert len(files) == 0


def test_tests_that_are_put_back_are_first() -> None:
    files = Files({"tests/console/a": [0, 1, 2], "b": [3]}, ())
    assert files.take(0) == [0, 1, 2]
    files.ended(0)
    files.put_back("tests/console/a", [2])
    files.put_back("tests/console/a", [1])
    assert [files.take(1), files.take(1)] == [[1, 2], [3]]
