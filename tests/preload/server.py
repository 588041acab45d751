"""`python -m tests.preload.server FD`: imports what the platform's processes import, and is forked for each of them.

It has one thread, and does nothing but wait for requests at a socket. It ends when that is closed.
"""

import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import runpy
import signal
import socket
import sys
import threading
from typing import Any, TypedDict

from runtime.local import linux
from tests.preload.client import LONGEST, Preload, limits
from tests.preload.linux import fork_sibling

ROOMS = ("domain", "eventstore", "handlers", "projections", "gateway", "node_daemon", "runtime", "cli")
#: The first registers its commands with other modules, and so is imported once, as `__main__`. No role needs the other.
NOT_IMPORTED = ("cli.main", "eventstore.library")
#: What is imported when it is needed first.
ALSO = ("uvloop", "httptools", "rich.console", "rich.table", "typer.rich_utils", "asyncio.subprocess", "encodings.idna")
READY = b"r"
#: Commands that start processes themselves.
STARTERS = {"up", "demo"}


class Start(TypedDict):
    words: list[str]
    folder: str
    environment: dict[str, str]
    umask: int
    limits: dict[str, tuple[int, int]]
    new_session: bool
    death_signal: int


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who started us
    connection = socket.socket(fileno=int(sys.argv[1]))
    imported_with = dict(os.environ)
    import_all()
    check_alone()
    linux.show(sys.orig_argv, os.environ)  # raises OSError where the kernel cannot do so
    connection.send(READY)
    start = next_start(connection)
    while set(start["words"][2:]) & STARTERS:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            theirs.close()
            Preload(ours, imported_with).install()
            break
        ours.close()
        become_server()
        theirs.send(READY)
        start = next_start(theirs)
    sys.modules.pop(start["words"][2], None)  # as if nobody had imported it
    runpy.run_module(start["words"][2], run_name="__main__", alter_sys=True)


def import_all() -> None:
    for room in ROOMS:
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if not module.name.startswith(NOT_IMPORTED):
                importlib.import_module(module.name)
    for name in ALSO:
        importlib.import_module(name)
    importlib.import_module("gateway.table.reads").described()  # as the process of `nebula up` that forks roles does
    gc.collect()
    gc.freeze()


def check_alone() -> None:
    """A fork has one thread: what another one did at that moment would never be finished."""
    threads = os.listdir("/proc/self/task")
    assert len(threads) == threading.active_count() == 1, f"importing started a thread: {threads}"


def become_server() -> None:
    """For the fork of a process that starts others: it shall not keep what that has open."""
    linux.end_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


def next_start(connection: socket.socket) -> Start:
    """Returns in each fork, once that is all a new process would be. Exits when nobody can ask any more."""
    while True:
        try:
            request, files, _, _ = socket.recv_fds(connection, LONGEST, 3)
        except ConnectionError:
            request = b""
        if not request:
            os._exit(0)
        if fork_sibling() == 0:
            break
        for number in files:
            os.close(number)
    start: Start = json.loads(request)
    try:
        become(start, files)
    finally:
        connection.send(str(os.getpid()).encode())
        connection.close()
    return start


def become(start: Start, files: list[int]) -> None:
    for number, own in enumerate(files):
        os.dup2(own, number)
        os.close(own)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        made = stream(number, getattr(sys, name))
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)
    os.chdir(start["folder"])
    os.umask(start["umask"])
    for number, limit in limits().items():
        soft, hard = start["limits"][str(number)]
        if (soft, hard) != limit:
            resource.setrlimit(number, (soft, hard))
    if start["new_session"]:
        os.setsid()
    linux.end_with_parent(start["death_signal"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in os.environ.keys() - start["environment"].keys():
        del os.environ[name]
    os.environ.update(start["environment"])
    sys.path[0] = start["folder"]
    sys.argv = start["words"][2:]
    sys.orig_argv = start["words"]
    linux.show(start["words"], start["environment"])


def stream(number: int, own: Any) -> Any:
    """As Python opens it at its start."""
    unbuffered = own.write_through
    file: Any = os.fdopen(number, "wb" if number else "rb", 0 if unbuffered and number else -1, closefd=False)
    lines = not unbuffered and (number == 2 or file.isatty())
    return io.TextIOWrapper(file, own.encoding, own.errors, line_buffering=lines, write_through=unbuffered)


if __name__ == "__main__":
    main()
