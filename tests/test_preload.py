"""A process that is a fork of the preload server is what a new interpreter is, and nothing of it is left over."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.files import private
from runtime.local.child import spawn
from tests.preload.client import ROOT, Preload
from tests.waiting import eventually

PROBE = [sys.executable, "-m", "tests.preload.probe"]


@pytest.fixture(autouse=True)
def forked(preload: Preload) -> None:
    subprocess.run(["true"], check=True)  # a start, from which it is known how this Python starts processes
    if not preload.known or not preload.wait():
        pytest.skip("this Python, or this kernel, cannot make such forks: all processes are new interpreters")


def is_fork(pid: int) -> bool:
    """Its memory holds what others import."""
    return "libvirtmod" in Path(f"/proc/{pid}/maps").read_text()


def both(preload: Preload, run: Callable[[], Any]) -> tuple[Any, Any]:
    """What is found with a fork, and with a new interpreter."""
    fork = run()
    preload.enabled = False
    try:
        return fork, run()
    finally:
        preload.enabled = True


@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize("guard", [(), ("setpriv", "--pdeathsig", "TERM", "--")], ids=["alone", "guarded"])
def test_a_fork_sees_what_a_new_interpreter_sees(
    session: bool, guard: tuple[str, ...], preload: Preload, tmp_path: Path
) -> None:
    def run() -> Any:
        environment = {**os.environ, "NEBULA_HOME": "/ö \udcff"}
        with (tmp_path / "out").open("wb") as out, (tmp_path / "in").open("a+b") as file:
            done = subprocess.run(
                [*guard, *PROBE, "3", "a b"],
                check=False,
                cwd=ROOT,
                env=environment,
                stdin=file,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=session,
            )
        assert done.returncode == 3
        return json.loads((tmp_path / "out").read_text())

    os.umask(0o027)
    private.begin()  # a limit that has been lowered since the server was started
    fork, new = both(preload, run)
    for word, value in new.items():
        assert fork[word] == value, word
    assert fork["parent"] == os.getpid()


def test_streams_are_what_they_are_given(preload: Preload) -> None:
    def run() -> Any:
        done = subprocess.run(PROBE, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        return json.loads(done.stdout)["streams"], done.stderr

    fork, new = both(preload, run)
    assert fork == new


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_its_status_is_how_it_ended(sent: signal.Signals) -> None:
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*PROBE, "sleep", stdout=pipe, stderr=null)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline()
        assert is_fork(process.pid)
        process.send_signal(sent)
        async with asyncio.timeout(60):
            assert await process.wait() == -sent
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_an_error_is_told_as_always(preload: Preload) -> None:
    def run() -> Any:
        done = subprocess.run([*PROBE, "x"], check=False, capture_output=True, text=True)
        return done.returncode, done.stderr.splitlines()[0], done.stderr.splitlines()[-1]

    fork, new = both(preload, run)
    assert fork == new
    assert fork[0] == 1
    assert "ValueError" in fork[2]


async def test_it_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    """Roles of a platform whose process is killed end too, and so does their server."""
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom runtime.local.child import spawn\n"
        "from tests.preload.client import begin\n"
        "made = begin()\nassert made.wait()\n"
        f"child = asyncio.run(spawn('probe', {PROBE!r} + ['sleep'], Path({str(tmp_path / 'log')!r})))\n"
        "print(child.pid, made.server.pid, flush=True)\nsys.stdin.read()"
    )
    pipe = asyncio.subprocess.PIPE
    starter = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe)
    assert starter.stdout is not None
    pids = [int(word) for word in (await starter.stdout.readline()).split()]
    assert is_fork(pids[0])
    starter.kill()
    await starter.wait()
    await eventually(lambda: not any(running(pid) for pid in pids), "all of them end")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_whoever_needs_more_than_a_fork_gets_a_new_interpreter(tmp_path: Path) -> None:
    child = await spawn("probe", [*PROBE, "sleep"], tmp_path / "log", env={"PYTHONUTF8": "1"})
    try:
        await eventually((tmp_path / "log").read_text, "it runs")
        assert not is_fork(child.pid)
    finally:
        await child.kill()
