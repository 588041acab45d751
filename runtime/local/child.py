"""Start a process of our own, keep its log, and end it for certain.

Every child is in a session of its own: Ctrl-C in the terminal reaches the supervisor alone, which then stops
its children in order. Every child also dies when the process that started it dies, even by SIGKILL (`setpriv
--pdeathsig`; the kernel ties this to the *thread* that started it: start children from the main thread).
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 10.0


class ServerError(Exception):
    """An outside server cannot be had. The message is one line that says what is missing and what to do."""


@dataclass(frozen=True)
class Child:
    """A running process. `log` receives its stdout and stderr, from byte `log_start` on."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    log_start: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    async def stop(self, sig: signal.Signals = signal.SIGTERM, grace: float = STOP_SECONDS) -> None:
        """End it with `sig`, or with SIGKILL after `grace` seconds. Returns when it is gone."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(sig)
        try:
            await asyncio.wait_for(self.process.wait(), grace)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL, then wait until it is gone."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()

    def failure(self, what: str) -> ServerError:
        """The error to raise when `what` happened: one line that ends with the last lines it logged."""
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
) -> Child:
    """Start `argv` with our environment plus `env`, as OS user `user` (only root can ask for another).

    `death_signal` is what the kernel sends it when we die.
    """
    guard = ["setpriv", "--pdeathsig", death_signal]
    if user is not None:
        guard += ["--reuid", user, "--regid", user, "--init-groups"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        log.chmod(0o600)
        log_start = output.tell()
        process = await asyncio.create_subprocess_exec(
            *guard,
            "--",
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    return Child(name, process, log, log_start)


async def stop_leftover(pid_file: Path, argument: str) -> None:
    """End the server that an earlier, killed supervisor left behind on the same directory, and wait for it.

    It is the process named in the first line of `pid_file`, provided that `argument` is on its command line:
    a process number may have been handed out again since. Nothing to do is not an error.
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
    """The arguments of a live process; empty when there is none by that number."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def remembered_port(file: Path) -> int | None:
    """The port that stands in a file; None where there is none, whatever there is."""
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65536 else None


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int) -> None:
    """Raise ServerError when somebody listens on this TCP port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection does not occupy it
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServerError(f"port {port} is taken by another program: stop that, or choose another port") from error


def find_program(name: str) -> Path | None:
    """`name` beside this Python (a virtual environment's programs), else in PATH, else in sbin."""
    places = [str(Path(sys.executable).parent), *os.get_exec_path(), "/usr/sbin", "/sbin"]
    found = shutil.which(name, path=os.pathsep.join(places))
    return Path(found) if found else None
