"""Starts a child process, writes its log, and ends it reliably.

Each child has its own session: Ctrl-C in the terminal reaches only the supervisor, which then stops its children in
order. Each child also ends when the process that started it ends, even by SIGKILL (`setpriv --pdeathsig`; for the
kernel the parent is the *thread* that started it, so start children from the main thread).
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

STOP_SECONDS = 10.0


class ServerError(Exception):
    """A server cannot be started or reached. The message is one line that says what is missing and what to do."""


class Process(Protocol):
    """As `asyncio.subprocess.Process`, or a fork (`forks.py`)."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def send_signal(self, signal: int, /) -> None: ...
    def kill(self) -> None: ...


@dataclass(frozen=True)
class Child:
    """A child process. `log`: the file of its stdout and stderr, which begin at byte `log_start`."""

    name: str
    process: Process
    log: Path
    log_start: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    async def stop(self, sig: signal.Signals = signal.SIGTERM, grace: float = STOP_SECONDS) -> None:
        """End it with `sig`, or with SIGKILL after `grace` seconds. Returns when it has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(sig)
        try:
            await asyncio.wait_for(self.process.wait(), grace)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Send SIGKILL, and wait until it has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()

    def failure(self, what: str) -> ServerError:
        """The error for a failure (`what`): one line that ends with its last log lines."""
        logged = self.log.read_bytes()[self.log_start :].decode(errors="replace").split("\n")
        last = " | ".join([line.strip() for line in logged if line.strip()][-2:])
        return ServerError(f"{self.name} {what}; {self.log} ends with: {last or '(nothing)'}")


async def spawn(
    name: str,
    argv: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    death_signal: str = "TERM",
    new_session: bool = True,
    namespace: str | None = None,
    without: str | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
) -> Child:
    """Start `argv` with our environment plus `env`, as user `user` of the system (another user requires root).

    `namespace`: the network namespace in which it runs, of those that `ip netns` has named; None for ours.

    `death_signal`: the signal that the kernel sends it when this process ends. `new_session`: Ctrl-C at our terminal
    does not reach it. `without`: the beginning of the names of variables of our environment that it does not get.
    """
    guard = [] if namespace is None else ["ip", "netns", "exec", namespace]
    guard += ["setpriv", "--pdeathsig", death_signal]
    if user is not None:
        guard += ["--reuid", user, "--regid", user, "--init-groups"]
    inherited = {name: value for name, value in os.environ.items() if without is None or not name.startswith(without)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        log.chmod(0o600)
        log_start = output.tell()
        process = await asyncio.create_subprocess_exec(
            *guard,
            "--",
            *argv,
            stdin=stdin,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=inherited | dict(env or {}),
            start_new_session=new_session,
        )
    return Child(name, process, log, log_start)


async def stop_leftover(pid_file: Path, argument: str) -> None:
    """End the server that an earlier, killed supervisor has left running in the same folder, and wait for its end.

    Its process id is in the first line of `pid_file`. It is ended only if `argument` is on its command line, because
    the process id may have been reused. No error if there is none.
    """
    try:
        pid = int(pid_file.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return
    for sent in (signal.SIGINT, signal.SIGKILL):
        if argument not in command_line(pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent)
        deadline = time.monotonic() + STOP_SECONDS
        while argument in command_line(pid) and time.monotonic() < deadline:  # noqa: ASYNC110  (not our child)
            await asyncio.sleep(0.05)


def command_line(pid: int) -> list[str]:
    """The arguments of a running process; empty if there is no process with this id."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def remembered_port(file: Path) -> int | None:
    """The port in a file; None if the file has no valid port."""
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65536 else None


#: Ports of servers without a port of their own.
LISTENED = range(16384, 32768)
#: Those that this process got from `free_port`.
_returned: set[int] = set()


def free_port() -> int:
    """A TCP port on loopback that is not in use now. It was not returned before, or two servers might get it.

    It is not one of those that the kernel gives to outgoing connections (from 32768 on by default), or such a
    connection could have it before the server is started that should listen there.
    """
    for port in random.SystemRandom().sample(LISTENED, 100):  # a forked process has the numbers of its parent else
        if port in _returned:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _returned.add(port)
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


def require_free(port: int) -> None:
    """Raises ServerError if this TCP port of loopback is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection does not occupy it
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServerError(f"port {port} is used by another program: stop it, or choose another port") from error


def find_program(name: str) -> Path | None:
    """The program in the folder of this Python (a virtual environment), else in PATH, else in sbin."""
    places = [str(Path(sys.executable).parent), *os.get_exec_path(), "/usr/sbin", "/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    return Path(found) if found else None
