"""A role that is told to stop ends by itself, whatever is away, and whenever it went away."""

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from runtime.local.child import free_port
from runtime.local.servers import NatsServer, start_nats
from runtime.tasks.stopping import FORCED
from tests.roles.processes import ROLES, RoleProcess, role
from tests.roles.test_starts import READY, WAITS

#: What says that the signal came before a role handles it.
TOO_EARLY = -signal.SIGTERM
ANSWERED = {**READY, "projections": "answering guest-data"}  # there is no Postgres here


@asynccontextmanager
async def own_server(home: Path) -> AsyncIterator[NatsServer]:
    """A server that a test may freeze or kill."""
    server = await start_nats(home)
    try:
        yield server
    finally:
        await server.child.kill()


async def stopped(running: RoleProcess, *allowed: int) -> None:
    """Ends without being forced to."""
    if running.child.running:
        running.child.process.send_signal(signal.SIGTERM)
    assert await running.ends() in (0, *allowed), running.log.read_text()
    said = running.log.read_text()
    assert "did not stop in time" not in said
    assert "Traceback" not in said


async def test_while_the_bus_was_never_there(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        url = f"nats://127.0.0.1:{free_port()}"
        started = [await stack.enter_async_context(role(name, tmp_path, url)) for name in ROLES]
        for running in started:
            await running.says(WAITS, "NATS at")
        for running in started:
            await stopped(running, *([TOO_EARLY] if running.name == "gateway" else []))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_while_the_bus_is_away(how: signal.Signals, tmp_path: Path) -> None:
    async with own_server(tmp_path) as server, AsyncExitStack() as stack:
        started = [await stack.enter_async_context(role(name, tmp_path, server.url)) for name in ROLES]
        for running in started:
            await running.says(ANSWERED[running.name])
        os.kill(server.pid, how)
        if how is signal.SIGKILL:
            for running in started:
                await running.says(WAITS, "NATS at")
        for running in started:
            await stopped(running)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_whenever_the_bus_goes_away(how: signal.Signals, tmp_path: Path) -> None:
    """While it starts: before the connection, in the middle of its first questions, or later."""
    chance = random.Random(11)
    for number in range(4):
        home = tmp_path / str(number)
        home.mkdir()
        async with own_server(home) as server, AsyncExitStack() as stack:
            started = [await stack.enter_async_context(role(name, home, server.url)) for name in ROLES]
            await asyncio.sleep(chance.uniform(0.5, 4.0))
            os.kill(server.pid, how)
            await asyncio.sleep(chance.choice([0.0, 0.1, 0.6]))
            for running in started:
                await stopped(running, TOO_EARLY)


async def test_a_node_whose_libvirt_does_not_answer(nats_server: NatsServer, tmp_path: Path) -> None:
    """It accepts connections, and says nothing: the threads of libvirt's client wait for ever."""
    with socket.socket(socket.AF_UNIX) as silent:
        path = tmp_path / "libvirt.sock"
        silent.bind(str(path))
        silent.listen(64)
        uri = f"qemu+unix:///system?socket={path}"
        async with role("node", tmp_path, nats_server.url, LIBVIRT_URI=uri) as running:
            silent.setblocking(False)
            accepted, _ = await asyncio.get_running_loop().sock_accept(silent)
            running.child.process.send_signal(signal.SIGTERM)
            with accepted:
                assert await running.ends() in (0, FORCED), running.log.read_text()


PROGRAM = """
import asyncio, sys, threading
import uvloop
from runtime import logs
from runtime.tasks import stopping

async def deaf(times):
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            times -= 1
            if times == 0:
                raise

async def run(what, grace):
    stop = asyncio.Event()
    stopping.on_signals(stop, grace)
    if what == "thread":
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    else:
        left = asyncio.create_task(deaf(int(what)), name="deaf")
    await asyncio.sleep(0)
    print("runs", flush=True)
    await stop.wait()

logs.configure("test", "INFO", "json")
uvloop.run(stopping.to_its_end(run(sys.argv[1], float(sys.argv[2]))))
"""


@pytest.mark.parametrize(
    ("what", "grace", "status", "words"),
    [
        ("3", "300", 0, ""),
        ("-1", "0.2", FORCED, "deaf"),
        ("thread", "0.2", FORCED, "threading.py"),
    ],
    ids=["a task that loses some cancellations", "a task that loses all", "a thread that waits"],
)
async def test_what_is_left_behind_does_not_keep_a_process(what: str, grace: str, status: int, words: str) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, what, grace, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"runs\n"
        child.terminate()
        async with asyncio.timeout(60):
            said, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    assert child.returncode == status, said.decode()
    assert words in said.decode()
    assert ("did not stop in time" in said.decode()) == (status == FORCED)
