"""Starts processes as forks of one that has imported their modules, which are in memory only once then.

The process that forks them (`fork_server.py`) is started again when it ends; the forks live on. It is started without
settings of ours, which may hold secrets. Where the kernel cannot do it, each process is a new interpreter.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from runtime import logs
from runtime.local import linux
from runtime.local.child import Child, spawn
from runtime.local.fork_server import ANSWER, BEGIN, PLEASE, READY, UNABLE, Request
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: Seconds before the process that forks is started again.
RESTART = Backoff(first=0.1, last=5.0)
#: Seconds for an answer, which takes milliseconds. A process that gives none is killed.
PATIENCE = 15.0
SETTINGS = "NEBULA_"


class Forked:
    """A process that is a child of ours, but that we have not started."""

    def __init__(self, pid: int) -> None:
        """Call it in the thread of the event loop. Raises OSError."""
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._file = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._file, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._file)
        os.close(self._file)
        try:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:  # somebody else has waited for it
            self.returncode = 255
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, signal: int) -> None:
        if self.returncode is None:  # nobody has waited for it, so its id is not used again
            os.kill(self.pid, signal)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@dataclass(frozen=True)
class _Server:
    """`asking`: held while somebody waits for its answer; its connection is not closed then."""

    child: Child
    connection: socket.socket
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Forks:
    """Starts processes. Use it as `async with Forks(…) as forks`, in the main thread.

    `command`: the beginning of the commands that can be forks; `server`: the module of the process that forks, which
    then does what such a command does. `log`: its log. `new_session`: Ctrl-C at our terminal does not reach it.
    """

    def __init__(self, command: Sequence[str], server: str, log: Path, *, new_session: bool = True) -> None:
        self._command = list(command)
        self._module = server
        self._log = log
        self._new_session = new_session
        self._server: _Server | None = None
        self._able = True
        self._changed = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the process that forks, which takes a second. Processes can be requested meanwhile."""
        self._able = _is_able()
        self._keeping = asyncio.create_task(self._keep(), name="keep the process that forks")

    async def stop(self) -> None:
        """End the process that forks. The forks go on."""
        if self._keeping is not None:
            await end([self._keeping])

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """The process that forks, while it can."""
        return self._server.child.pid if self._server is not None else None

    async def spawn(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str],
        new_session: bool = True,
        namespace: str | None = None,
    ) -> Child:
        """As `child.spawn`, with SIGTERM as death signal. Raises OSError."""
        if list(argv[: len(self._command)]) == self._command:
            request = Request(list(argv), {**os.environ, **env}, new_session, namespace)
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                log.chmod(0o600)
                start = output.tell()
                forked = await self._fork(output.fileno(), request)
            if forked is not None:
                return Child(name, forked, log, start)
        return await spawn(name, argv, log, env=env, new_session=new_session, namespace=namespace)

    async def _fork(self, log: int, request: Request) -> Forked | None:
        """None if this kernel is not able to."""
        async with self._one_at_a_time:
            while (server := await self._ready()) is not None:
                try:
                    async with server.asking:
                        return await _ask(server.connection, log, request)
                except (EOFError, ConnectionError, TimeoutError):
                    await self._lose(server)  # another one is started
                except asyncio.CancelledError:
                    await self._lose(server)  # its answer would be taken for that to the next request
                    raise
        return None

    async def _ready(self) -> _Server | None:
        while self._server is None and self._able:
            self._changed.clear()
            await self._changed.wait()
        return self._server

    async def _lose(self, server: _Server) -> None:
        if self._server is server:
            self._server = None
        await server.child.kill()

    async def _keep(self) -> None:
        """Start the process that forks whenever it ends."""
        pauses = RESTART.pauses()
        while self._able:
            try:
                server = await self._start()
            except OSError as error:
                log.warning("the process that forks roles cannot be started", error=str(error))
            else:
                try:
                    if await _is_ready(server):
                        self._server = server
                        self._changed.set()
                        pauses = RESTART.pauses()
                    status = await server.child.process.wait()
                finally:
                    await self._lose(server)
                    with suppress(OSError):
                        server.connection.shutdown(socket.SHUT_RDWR)
                    async with server.asking:  # it gets an end of file now
                        server.connection.close()
                self._able = status != UNABLE
                log.warning("the process that forks roles ended", status=status, log=str(self._log))
            await asyncio.sleep(next(pauses) if self._able else 0)
        self._changed.set()

    async def _start(self) -> _Server:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        command = [sys.executable, "-m", self._module]
        with theirs:
            try:
                child = await spawn(
                    "forks",
                    command,
                    self._log,
                    env={},
                    without=SETTINGS,
                    stdin=theirs.fileno(),
                    new_session=self._new_session,
                )
            except BaseException:
                ours.close()
                raise
        return _Server(child, ours)


def _is_able() -> bool:
    """Whether we can adopt processes, and wait for them."""
    try:
        os.close(os.pidfd_open(os.getpid()))
        with linux.adopting():
            return True
    except OSError as error:
        log.warning("roles are no forks: this kernel cannot adopt them", error=str(error))
        return False


async def _is_ready(server: _Server) -> bool:
    """Wait until it has imported all modules; False if it ends before."""
    with suppress(ConnectionError):
        return await asyncio.get_running_loop().sock_recv(server.connection, len(READY)) == READY
    return False


async def _ask(connection: socket.socket, log: int, request: Request) -> Forked:
    """Raises EOFError, ConnectionError or TimeoutError if it does not answer, OSError if it cannot fork."""
    loop = asyncio.get_running_loop()
    memory = os.memfd_create("request")
    theirs, ours = os.pipe()
    try:
        os.write(memory, request.written())
        with linux.adopting():
            socket.send_fds(connection, [PLEASE], [log, memory, theirs])
            async with asyncio.timeout(PATIENCE):
                answer = int(await loop.sock_recv(connection, ANSWER) or 0)
        if answer == 0:
            raise EOFError
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        forked = Forked(answer)
        os.write(ours, BEGIN)
        return forked
    finally:
        for file in (memory, theirs, ours):
            os.close(file)
