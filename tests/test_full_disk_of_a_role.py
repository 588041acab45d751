"""A full disk under a role: its log, its own files, its start. It waits, says so where it can, and goes on."""

import asyncio
import contextlib
import errno
import io
import logging
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest

from cli.local import home as homes, progress, role, servers
from runtime import logs
from runtime.files.files import put
from runtime.local import logfiles
from runtime.local.child import remembered_port
from runtime.local.logfiles import KEPT, rotate
from runtime.local.servers import postgres_port, remembered_dsn
from runtime.settings import GatewaySettings
from runtime.tasks.backoff import Backoff
from tests.small_disk import MIB, fill, mounted, needs_root
from tests.test_logs import restored
from tests.waiting import eventually

__all__ = ["restored"]


def full(name: str = "/var/lib/x") -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


@contextmanager
def written_to(path: str | int) -> Iterator[TextIO]:
    """A stream as standard error is one, to where nothing can be written."""
    stream = open(path, "w", buffering=1)  # noqa: SIM115
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):
            stream.close()


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_a_line_that_cannot_be_written_ends_nobodys_work(
    restored: None, monkeypatch: pytest.MonkeyPatch, fmt: str
) -> None:
    with written_to("/dev/full") as nowhere, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", nowhere)
        logs.configure("tests", "info", fmt)
        log = logs.get("ours")
        log.warning("lost")
        logging.getLogger("theirs").warning("lost too")
        try:
            raise ValueError("a bug")
        except ValueError:
            log.exception("lost as well")
        room = io.StringIO()
        patched.setattr("sys.stderr", room)
        log.warning("there is room")
        log.warning("as before")
    first, second = room.getvalue().splitlines()
    assert "there is room" in first
    assert re.search(r"lines_lost\W+3\b", first)
    assert "lines_lost" not in second


def test_a_closed_pipe_neither(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with written_to(writing) as pipe, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", pipe)
        patched.setattr("sys.stdout", pipe)
        logs.configure("tests", "info", "text")
        logs.get("ours").warning("nobody reads")
        progress.say("nobody reads")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", 4) as folder:
        yield folder


@needs_root
def test_rotation_on_a_full_disk_gives_up_old_copies_and_no_others(small: Path) -> None:
    file = small / "role.log"
    for number in range(KEPT):
        file.write_bytes(b"%d" % number * (MIB // 2))
        assert rotate(file, 1000)
    file.write_bytes(b"n" * MIB)
    fill(small / "ballast")
    assert rotate(file, 1000)
    left = {path.name: path.read_bytes()[:1] for path in small.iterdir() if path.name != "ballast"}
    assert left == {"role.log": b"", "role.log.1": b"n", "role.log.2": b"3", "role.log.3": b"2"}


@needs_root
def test_rotation_that_finds_no_room_at_all_leaves_everything(small: Path) -> None:
    file = small / "role.log"
    file.write_bytes(b"n" * MIB)
    fill(small / "ballast")
    with pytest.raises(OSError, match="No space"):
        logfiles.rotate(file, 1000)
    assert {path.name for path in small.iterdir()} == {"role.log", "ballast"}
    assert file.stat().st_size == MIB


@needs_root
def test_files_of_the_home_are_whole_or_as_they_were(small: Path) -> None:
    put(small / "nats.port", "4333")
    listed = homes.tokens_file(small).read_text()
    fill(small / "ballast")
    put(small / "nats.port", "4333")  # what is right already needs no room
    for name, text in (("nats.port", "4334" * 4096), ("new", "x")):
        with pytest.raises(OSError, match="No space"):
            put(small / name, text)
    assert remembered_port(small / "nats.port") == 4333
    assert homes.tokens_file(small).read_text() == listed
    assert {path.name for path in small.iterdir()} == {"nats.port", "tokens", "admin.token", "ballast"}
    assert stat.S_IMODE((small / "nats.port").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "70000", "4222 4223", "\x00"])
def test_a_port_file_that_a_full_disk_cut_off_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "nats.port").write_text(text)
    (tmp_path / "postgres.port").write_text(text)
    (tmp_path / "postgres.projections.password").write_text("x")
    assert homes.nats_port(tmp_path) > 0
    assert postgres_port(tmp_path) > 0
    assert remembered_dsn(tmp_path) is None


def test_a_role_that_finds_the_disk_full_waits_for_room(
    restored: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tries: list[str] = []

    async def run(settings: Any) -> None:
        tries.append("run")
        if len(tries) < 4:
            raise full(str(settings.home))

    def put(file: Path, text: str, *, durable: bool) -> None:
        if not tries:
            tries.append("pid file")
            raise full(str(file))

    monkeypatch.setattr("gateway.main.run", run)
    monkeypatch.setattr("runtime.files.files.put", put)
    monkeypatch.setattr("time.sleep", lambda _: None)
    role.run("gateway", GatewaySettings(home=tmp_path), tmp_path / "pid")
    assert tries == ["pid file", "run", "run", "run"]
    said = capsys.readouterr().err
    assert said.count("the disk is full") == 3
    assert "Traceback" not in said


def test_other_errors_of_a_start_end_it(restored: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def run(settings: Any) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr("gateway.main.run", run)
    with pytest.raises(SystemExit):
        role.run("gateway", GatewaySettings(home=tmp_path))


@dataclass
class Server:
    """What `kept` looks after: a process that ends at once, as on a disk without room."""

    home: Path
    child: Any

    async def stop(self) -> None:
        """Nothing is left of it."""


async def test_a_server_that_ends_on_a_full_disk_is_started_once_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    room, starts = [0], 0

    async def start() -> Any:
        nonlocal starts
        starts += 1
        if starts == 2:
            raise ValueError("what nobody expected")
        argv = [sys.executable, "-c", "" if starts == 1 else "import time; time.sleep(60)"]
        process = await asyncio.create_subprocess_exec(*argv)
        return Server(tmp_path, type("Child", (), {"process": process, "running": True}))

    monkeypatch.setattr(servers, "free_bytes", lambda _: room[0])
    monkeypatch.setattr(servers, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(servers, "RETRY", Backoff(first=0.01, last=30.0))
    async with servers.kept("postgres", start):
        said = ""

        def full_is_said() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return "is full" in said

        await eventually(full_is_said, "the full disk is told")
        assert starts == 1
        room[0] = 1 << 40
        await eventually(lambda: starts == 3, "it is started, and again after an unknown error")
    assert said.count("is full") == 1
    assert "what nobody expected" in capsys.readouterr().out
