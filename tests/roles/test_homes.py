"""A home that cannot be used ends a role, and `nebula up`, in one line that names it, with status 2."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cli.local import role as roles
from runtime.files import private
from runtime.local.servers import NatsServer
from runtime.settings import NodeSettings, SimulationSettings
from tests.cli.conftest import Nebula, environment, nebula, platform
from tests.roles.processes import RoleProcess, role
from tests.small_disk import mounted, needs_root

__all__ = ["nebula", "platform"]


@pytest.fixture
def occupied(tmp_path: Path) -> Path:
    """A file where a home is to be."""
    file = tmp_path / "occupied"
    file.write_text("mine")
    return file


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "read-only", 1) as folder:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder


async def test_a_file_in_the_place_of_the_home_ends_every_role(
    nats_server: NatsServer, tmp_path: Path, occupied: Path
) -> None:
    async def ended(running: RoleProcess) -> None:
        assert await running.ends() == 2, running.log.read_text()
        [line] = [line for line in running.log.read_text().splitlines() if "cannot run" in line]
        assert str(occupied) in line
        assert "Traceback" not in running.log.read_text()

    names = ["handlers", "projections", "node", "simulation"]
    async with AsyncExitStack() as stack:
        made = [role(name, tmp_path, nats_server.url, HOME=str(occupied)) for name in names]
        started = [await stack.enter_async_context(each) for each in made]
        await asyncio.gather(*(ended(running) for running in started))
    assert occupied.read_text() == "mine"


@needs_root
@pytest.mark.parametrize(("name", "kind"), [("node", NodeSettings), ("simulation", SimulationSettings)])
def test_a_read_only_home_ends_a_role(
    name: str, kind: type[NodeSettings], read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        roles.run(name, kind(home=read_only))
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "its disk is read-only" in line
    assert str(read_only) in line


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (PermissionError(errno.EACCES, "", "/home/of/another"), 2, 1),
        (PermissionError(errno.EPERM, "", "/home/of/another"), 2, 1),
        (OSError(errno.EIO, "a disk fails", "/home"), 1, None),
        (OSError(errno.EADDRINUSE, "no file"), 1, None),
    ],
)
def test_what_a_role_ends_with(
    error: OSError,
    status: int,
    lines: int | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def program(settings: NodeSettings) -> None:
        raise error

    monkeypatch.setattr("node_daemon.main.run", program)
    with pytest.raises(SystemExit) as ended:
        roles.run("node", NodeSettings(home=tmp_path))
    said = capsys.readouterr().err
    assert (ended.value.code, "Traceback" in said) == (status, lines is None)
    assert lines in (None, said.count("\n"))


@needs_root
@pytest.mark.parametrize("home", ["occupied", "read_only"])
@pytest.mark.parametrize("command", [("up",), ("node", "--simulate", "1")])
def test_the_command_line_says_it_in_one_line(
    command: tuple[str, ...],
    home: str,
    nebula: Nebula,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    path = request.getfixturevalue(home)
    monkeypatch.setenv("NEBULA_HOME", str(path))
    monkeypatch.setenv("NEBULA_HTTP_PORT", "0")
    ran = nebula(*command)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
    assert str(path) in ran.err


def test_a_folder_is_not_made_of_a_file(occupied: Path) -> None:
    before = occupied.stat().st_mode
    for wanted in (occupied, occupied / "below"):
        with pytest.raises(NotADirectoryError):
            private.passable(wanted)
    assert occupied.stat().st_mode == before


#: A user without rights, with a group of its name.
OTHER = "daemon"
AS_OTHER = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "--"]


@pytest.fixture
def homes(open_folder: Path) -> dict[str, Path]:
    """Homes of root's, and one of another user's in which root has left a key."""
    able = [*AS_OTHER, sys.executable, "-c", "import cli.local.role"]
    if os.geteuid() != 0 or subprocess.run(able, check=False, capture_output=True).returncode:
        pytest.skip("has to be root, and this program readable for others")
    found = {}
    for name, mode in (("closed", 0o700), ("readable", 0o755), ("left", 0o755)):
        found[name] = open_folder / name
        found[name].mkdir(mode=mode)
    shutil.chown(found["left"], OTHER)
    (found["left"] / "master.key").write_text("of root")
    (found["left"] / "master.key").chmod(0o600)
    (found["closed"] / "tokens").touch()
    return found


async def test_a_home_of_another_user_ends_every_role(
    nats_server: NatsServer, homes: dict[str, Path], tmp_path: Path
) -> None:
    cases = {
        "closed": ("handlers", "projections", "node", "simulation", "gateway"),
        "readable": ("handlers", "node", "simulation"),
        "left": ("handlers", "projections"),
    }

    async def ended(running: RoleProcess, home: Path) -> None:
        assert await running.ends() == 2, running.log.read_text()
        [line] = running.said("cannot run")
        assert str(home) in line
        assert "Traceback" not in running.log.read_text()

    for which, names in cases.items():
        folder, home = tmp_path / which, homes[which]
        folder.mkdir()
        settings = {"HOME": str(home), "TOKENS_FILE": str(home / "tokens")}
        async with AsyncExitStack() as stack:
            made = [role(name, folder, nats_server.url, user=OTHER, **settings) for name in names]
            started = [await stack.enter_async_context(each) for each in made]
            await asyncio.gather(*(ended(running, home) for running in started))


@pytest.mark.parametrize("which", ["closed", "readable"])
def test_a_home_of_another_user_is_told_by_the_command_line(which: str, homes: dict[str, Path]) -> None:
    command = [*AS_OTHER, sys.executable, "-m", "cli.main", "up"]
    ran = subprocess.run(command, env=environment(homes[which]), capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran.stderr
    assert str(homes[which]) in ran.stderr
