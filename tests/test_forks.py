"""A role that is a fork is what a new interpreter is, and shares nothing but modules with other roles."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.local import forks as module
from runtime.local.child import Child, command_line, spawn
from runtime.local.forks import Forks
from runtime.local.supervise import Role, Supervisor
from tests.processes import children_of
from tests.waiting import eventually

PROBE = [sys.executable, "-m", "tests.preload.probe"]
SERVER = "tests.preload.forking"
ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("new_interpreters")


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@asynccontextmanager
async def forking(folder: Path, server: str = SERVER) -> AsyncIterator[Forks]:
    async with Forks(PROBE[:3], server, folder / "forks.log") as forks:
        yield forks


async def printed(child: Child) -> str:
    assert await child.process.wait() == 0, child.log.read_text()
    return child.log.read_text()[child.log_start :]


async def sleeping(forks: Forks, folder: Path, name: str = "a", **env: str) -> Child:
    """A fork that sleeps, once it is what it is to be."""
    child = await forks.spawn(name, [*PROBE, "sleep"], folder / f"{name}.log", env=env)
    await eventually(child.log.read_text, "it runs")
    return child


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("session", [True, False])
async def test_a_fork_sees_what_a_new_interpreter_sees(session: bool, tmp_path: Path) -> None:
    command, env = [*PROBE, "0", "a b"], {"NEBULA_HOME": "/ö \udcff"}
    async with Forks(PROBE[:3], SERVER, tmp_path / "forks.log", new_session=session) as forks:
        fork = await forks.spawn("a", command, tmp_path / "a.log", env=env, new_session=session)
        seen = json.loads(await printed(fork))
        new = json.loads(await printed(await spawn("a", command, tmp_path / "a.log", env=env, new_session=session)))
        for ours in (seen, new):
            ours["number of files"] -= len(ours["files"])
            if not session:  # that of the process that forks
                ours["group"] = None
    for word, value in new.items():
        assert seen[word] == value, word
    assert seen["parent"] == os.getpid()
    assert (tmp_path / "a.log").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_its_status_is_how_it_ended(sent: signal.Signals, tmp_path: Path) -> None:
    async with forking(tmp_path) as forks:
        child = await sleeping(forks, tmp_path)
        assert child.pid in children_of(os.getpid())
        assert child.running
        child.process.send_signal(sent)
        assert await child.process.wait() == -sent
        assert not child.running
        child.process.kill()  # it has ended, so nobody gets a signal
        assert child.pid not in children_of(os.getpid())


async def test_an_error_is_in_its_log(tmp_path: Path) -> None:
    async with forking(tmp_path) as forks:
        child = await forks.spawn("a", [*PROBE, "x"], tmp_path / "a.log", env={})
        assert await child.process.wait() == 1
        assert "ValueError" in child.log.read_text()


async def test_forks_outlive_the_process_that_forks(tmp_path: Path) -> None:
    async with forking(tmp_path) as forks:
        first = await sleeping(forks, tmp_path)
        server = forks.pid
        assert server is not None
        os.kill(server, signal.SIGKILL)
        second = await sleeping(forks, tmp_path, "b")
        assert forks.pid not in (None, server)
        assert first.running
        await asyncio.gather(first.stop(), second.stop())
    assert "killed" not in (tmp_path / "forks.log").read_text()
    assert not [pid for pid in children_of(os.getpid()) if SERVER in command_line(pid)]


async def test_a_process_that_forks_no_more_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with forking(tmp_path) as forks:
        await (await sleeping(forks, tmp_path)).stop()
        server = forks.pid
        assert server is not None
        monkeypatch.setattr(module, "PATIENCE", 0.2)
        os.kill(server, signal.SIGSTOP)
        asking = asyncio.create_task(sleeping(forks, tmp_path, "b"))
        await eventually(lambda: not running(server), "the one that stands still is ended")
        monkeypatch.undo()
        monkeypatch.chdir(ROOT)
        await (await asking).stop()


async def test_several_are_requested_while_it_is_killed(tmp_path: Path) -> None:
    """None is lost, none runs twice, and none that nobody knows."""
    before = set(children_of(os.getpid()))
    async with forking(tmp_path) as forks:
        asking = [asyncio.create_task(sleeping(forks, tmp_path, f"n{number}")) for number in range(12)]
        killed = set[int]()
        while not all(task.done() for task in asking):
            if forks.pid is not None and forks.pid not in killed and len(killed) < 6:
                killed.add(forks.pid)
                os.kill(forks.pid, signal.SIGKILL)
            await asyncio.sleep(0.005)
        children = [task.result() for task in asking]
        known = {child.pid for child in children}
        assert len(known) == 12
        assert killed
        assert all(child.running for child in children)
        mine = {pid for pid in children_of(os.getpid()) if running(pid) and PROBE[2] in command_line(pid)}
        assert mine - before == known
        await asyncio.gather(*(child.stop() for child in children))


async def test_changed_code_is_imported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    (tmp_path / "changing.py").write_text("VALUE = 'old'\n")
    (tmp_path / "changing_server.py").write_text(
        "import changing\nfrom runtime.local.fork_server import next_process\nnext_process()\nprint(changing.VALUE)\n"
    )
    async with forking(tmp_path, "changing_server") as forks:

        async def value() -> str:
            return await printed(await forks.spawn("a", PROBE, tmp_path / "a.log", env={}))

        assert await value() == "old\n"
        server = forks.pid
        assert await value() == "old\n"
        assert forks.pid == server
        (tmp_path / "changing.py").write_text("VALUE = 'new one'\n")
        assert await value() == "new one\n"
        (tmp_path / "changing.py").write_text("def\n")  # as while an upgrade is unpacked
        (tmp_path / "changing_server.py").unlink()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(value(), 1)
        (tmp_path / "changing_server.py").write_text("from runtime.local.fork_server import next_process as n\nn()\n")
        assert await value() == ""
    assert "the code has changed" in (tmp_path / "forks.log").read_text()


async def test_the_process_that_forks_knows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither that of a role, which the next role would have in its memory, nor our own settings."""
    mine, theirs = os.urandom(12).hex(), os.urandom(12).hex()
    monkeypatch.setenv("NEBULA_NATS_PASSWORD", mine)
    async with forking(tmp_path) as forks:
        first = await sleeping(forks, tmp_path, "a", NEBULA_POSTGRES_DSN=theirs)
        second = await sleeping(forks, tmp_path, "b")
        assert forks.pid is not None
        assert found(first.pid, mine, theirs) == {mine, theirs}
        assert found(second.pid, mine, theirs) == {mine}
        assert found(forks.pid, mine, theirs, "PATH=") == {"PATH="}
        assert "NEBULA_" not in Path(f"/proc/{forks.pid}/environ").read_text()
        assert len(os.listdir(f"/proc/{forks.pid}/task")) == 1
        assert len(os.listdir(f"/proc/{forks.pid}/fd")) == 3
        await asyncio.gather(first.stop(), second.stop())


def found(pid: int, *texts: str) -> set[str]:
    """Those that are in the memory of a process."""
    there = set()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(word, 16) for word in place.split("-"))
            memory.seek(start)
            data = memory.read(end - start)
            there |= {text for text in texts if text.encode() in data}
    return there


async def test_forks_have_random_numbers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import random, ssl, uuid\nfrom runtime.local.fork_server import next_process\n"
    code += "random.random(), ssl.RAND_bytes(8), uuid.uuid4()\nnext_process()\n"
    code += "print(random.random(), ssl.RAND_bytes(8).hex(), uuid.uuid4())\n"
    (tmp_path / "random_server.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    async with forking(tmp_path, "random_server") as forks:
        lines = [await printed(await forks.spawn("a", PROBE, tmp_path / "a.log", env={})) for _ in range(3)]
    assert all(len(set(words)) == 3 for words in zip(*(line.split() for line in lines), strict=True)), lines


async def test_all_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from runtime.local.forks import Forks
async def main():
    async with Forks({PROBE!r}, {SERVER!r}, Path({str(tmp_path / "forks.log")!r})) as forks:
        child = await forks.spawn("a", {[*PROBE, "sleep"]!r}, Path({str(tmp_path / "a.log")!r}), env={{}})
        print(child.pid, forks.pid, flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""
    starter = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert starter.stdout is not None
    pids = [int(word) for word in (await starter.stdout.readline()).split()]
    await eventually((tmp_path / "a.log").read_text, "it runs")
    starter.kill()
    await starter.wait()
    await eventually(lambda: not any(running(pid) for pid in pids), "all of them end")


async def test_where_the_kernel_cannot_all_are_new_interpreters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unable.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    async with forking(tmp_path, "unable") as forks:
        seen = json.loads(await printed(await forks.spawn("a", PROBE, tmp_path / "a.log", env={})))
    assert seen["original arguments"] == PROBE


async def test_where_we_cannot_wait_for_forks_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", missing)
    async with forking(tmp_path) as forks:
        seen = json.loads(await printed(await forks.spawn("a", PROBE, tmp_path / "a.log", env={})))
        assert forks.pid is None
    assert seen["parent"] == os.getpid()


async def test_the_supervisor_starts_forks_and_others(tmp_path: Path) -> None:
    roles = [Role("a", [*PROBE, "sleep"], {}), Role("b", ["sleep", "1000"], {})]
    async with forking(tmp_path) as forks, Supervisor(roles, tmp_path, forks) as supervisor:

        async def pid(name: str, but: int = 0) -> int:
            check: Callable[[], Any] = lambda: supervisor.pids.get(name, but) != but  # noqa: E731
            await eventually(check, f"{name} runs")
            return supervisor.pids[name]

        first, other = await pid("a"), await pid("b")
        os.kill(first, signal.SIGKILL)
        second = await pid("a", first)
        assert await pid("b") == other
    assert not any(running(each) for each in (first, second, other))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_a_fork_in_a_network_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"nf-{os.getpid()}"
    shows = "import os\nfrom runtime.local.fork_server import next_process\nnext_process()\n"
    shows += "print(os.readlink('/proc/self/ns/net'), os.listdir('/sys/class/net'))\n"
    (tmp_path / "network_server.py").write_text(shows)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    await (await asyncio.create_subprocess_exec("ip", "netns", "add", name)).wait()
    try:
        async with forking(tmp_path, "network_server") as forks:
            ours = await printed(await forks.spawn("a", PROBE, tmp_path / "a.log", env={}))
            inside = await printed(await forks.spawn("a", PROBE, tmp_path / "a.log", env={}, namespace=name))
            missing = await forks.spawn("a", PROBE, tmp_path / "a.log", env={}, namespace="nowhere")
            assert await missing.process.wait() == 1
    finally:
        await (await asyncio.create_subprocess_exec("ip", "netns", "delete", name)).wait()
    assert ours.startswith(os.readlink("/proc/self/ns/net"))
    assert inside.split(" ", 1)[0] != ours.split(" ", 1)[0]
    assert inside.split(" ", 1)[1] == "['lo']\n"


def test_a_gateway_that_is_forked_has_its_description_already() -> None:
    """It takes 0.3 s of CPU time, whenever a gateway is started again after it was killed."""
    program = (
        "from cli.local.preloaded import import_all; import_all()\n"
        "from gateway.table.reads import described; assert described.cache_info().currsize == 1"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
