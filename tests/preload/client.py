"""Which starts of this process are forks of a preload server, and how it is asked for one."""

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Programs that are forks: these are the modules of `python -m`.
PROGRAMS = ("cli.", "tests.")
#: Variables that no module reads while it is imported. `nebula up` has two that a library sets.
READ_LATER = ("NEBULA_", "PYTEST_CURRENT_TEST", "COLUMNS", "LINES")
#: The longest request, in bytes. It is sent in one piece.
LONGEST = 100_000
#: Seconds for an answer of the server, which needs a few milliseconds.
PATIENCE = 120.0

_fork_exec: Callable[..., int] = subprocess._fork_exec  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Call:
    """What `subprocess` starts a process with."""

    arguments: Sequence[str | bytes]
    _executables: Sequence[bytes]
    close_others: bool
    keep: Sequence[int]
    folder: str | bytes | os.PathLike[str] | None
    environment: Sequence[bytes] | None
    stdin: int
    _stdin: int
    _stdout: int
    stdout: int
    _stderr: int
    stderr: int
    _failed: int
    failed: int
    restore_signals: bool
    new_session: bool
    group: int
    gid: int | None
    gids: Sequence[int] | None
    uid: int | None
    umask: int
    before: Callable[[], Any] | None
    _vfork: bool

    @property
    def usual(self) -> bool:
        """Without anything that a fork does not do."""
        return (
            self.close_others
            and list(self.keep) == [self.failed]
            and self.restore_signals
            and (self.group, self.umask) == (-1, -1)
            and (self.gid, self.gids, self.uid, self.before) == (None,) * 4
        )


class Preload:
    """Starts processes as forks of one server; as always, where that cannot be, or while the server is not ready."""

    def __init__(self, connection: socket.socket, imported_with: Mapping[str, str]) -> None:
        self._connection = connection
        self._connection.settimeout(PATIENCE)
        self._imported_with = decisive(imported_with)
        self._lock = threading.Lock()
        self.ready = False
        self.enabled = True
        #: whether starts have the arguments that `Call` lists; other versions of Python may have others
        self.known = True
        self.server: subprocess.Popen[bytes] | None = None

    def install(self) -> None:
        setattr(subprocess, "_fork_exec", self.start)  # noqa: B010  (it has no type)

    def end(self) -> None:
        setattr(subprocess, "_fork_exec", _fork_exec)  # noqa: B010
        self._connection.close()
        if self.server is not None:
            self.server.kill()
            self.server.wait()

    def wait(self) -> bool:
        """Whether the server gets ready. It does not on a host that cannot fork so."""
        with self._lock:
            self.ready = self.ready or bool(self._connection.recv(1))
        return self.ready

    def start(self, *arguments: Any) -> int:
        """The process id. It stands for `_posixsubprocess.fork_exec`."""
        self.known = len(arguments) == len(fields(Call))
        if self.enabled and self.known:
            call = Call(*arguments)
            request = self._request(call)
            if request is not None and len(request) <= LONGEST:
                given = (call.stdin, call.stdout, call.stderr)
                files = [number if own == -1 else own for number, own in enumerate(given)]
                with self._lock:
                    pid = self._ask(request, files) if self._is_ready() else b""
                if pid:
                    return int(pid)
        return _fork_exec(*arguments)

    def _is_ready(self) -> bool:
        if not self.ready and select.select([self._connection], [], [], 0)[0]:
            self.ready = bool(self._connection.recv(1))
        return self.ready

    def _ask(self, request: bytes, files: Sequence[int]) -> bytes:
        """Empty if the server has ended."""
        try:
            socket.send_fds(self._connection, [request], files)
            return self._connection.recv(32)
        except ConnectionError:
            return b""

    def _request(self, call: Call) -> bytes | None:
        """None if it is not a start that can be a fork."""
        words = [os.fsdecode(word) for word in call.arguments]
        death_signal = 0
        if words[:2] == ["setpriv", "--pdeathsig"] and words[3:4] == ["--"]:
            death_signal = signal.Signals[f"SIG{words[2]}"]
            words = words[4:]
        if words[:2] != [sys.executable, "-m"] or not words[2].startswith(PROGRAMS) or not call.usual:
            return None
        pairs = [os.fsdecode(each).partition("=") for each in call.environment or ()]
        environment = dict(os.environ) if call.environment is None else {name: value for name, _, value in pairs}
        folder = os.fsdecode(call.folder or Path.cwd())
        if decisive(environment) != self._imported_with or not Path(folder).is_dir():
            return None
        found = {
            "words": words,
            "folder": folder,
            "environment": environment,
            "umask": int(Path("/proc/self/status").read_text().partition("Umask:")[2].split()[0], 8),
            "limits": limits(),
            "new_session": call.new_session,
            "death_signal": death_signal,
        }
        return json.dumps(found).encode()


def limits() -> dict[int, tuple[int, int]]:
    """What this process may use at most, which its children inherit: soft and hard, by number."""
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {number: resource.getrlimit(number) for number in (getattr(resource, name) for name in names)}


def decisive(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a module may have read while it was imported."""
    return {name: value for name, value in environment.items() if not name.startswith(READ_LATER)}


def begin() -> Preload:
    """Start a server, which imports while we do something else, and ends when we do.

    To be called by the main thread: it is the parent of all forks.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.preload.server", str(theirs.fileno())]
    null = subprocess.DEVNULL
    made = Preload(ours, os.environ)
    with theirs:
        made.server = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=null, stdout=null)
    made.install()
    return made
