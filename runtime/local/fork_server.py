"""The process that forks others which have the same modules, so that these are in memory only once (`forks.py`).

It has one thread and no event loop, reads no secret, and executes nothing. Whoever started it sends a message with
three files for each process: its log, its request, and a pipe on which the new process waits until it may begin. Only
the new process reads the request, since its environment may hold secrets.

The new process is a child of whoever asked, not of this one: an intermediate process forks it and exits, and the kernel
gives it to the next ancestor that adopts orphans (`linux.adopting`). So it lives on if this process is killed.
"""

import gc
import hashlib
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Self

from runtime.local import linux

#: Files of a message, and the message; what is sent once the imports are done, and the length of other answers.
FILES, PLEASE, READY, ANSWER = 3, b"p", b"ready", 64
#: Status with which this process ends where the kernel cannot show the arguments of a fork.
UNABLE = 3
#: What a new process gets at the pipe when it may begin.
BEGIN = b"b"


@dataclass(frozen=True)
class Request:
    """What the new process will be. `arguments`: as of a command `python -m MODULE …`; `namespace`: its network."""

    arguments: list[str]
    environment: dict[str, str]
    new_session: bool
    namespace: str | None

    def written(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, file: int) -> Self:
        return cls(**json.loads(os.pread(file, os.fstat(file).st_size, 0)))


def imported() -> str:
    """The files of all modules, one a line. It is one new text: each object that is only looked at is written to, since
    it counts its references, and its page of memory is shared no longer.
    """
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return "\n".join(sorted(filter(None, files)))


def versions(files: str) -> bytes:
    """A digest of the versions of files, given one a line: their times, sizes and inodes. A file may be missing."""
    found = hashlib.sha256()
    for file in files.split("\n"):
        with suppress(OSError):
            now = os.stat(file)  # noqa: PTH116  (a Path for each is ten times as slow)
            found.update(b"%d %d %d" % (now.st_mtime_ns, now.st_size, now.st_ino))
        found.update(b"\n")
    return found.digest()


def next_process() -> Request:
    """Fork a process for each message at standard input. Returns in each of them, once it is what was requested.

    Call it when all has been imported. Exits when nobody can ask any more, or when a file of code has changed: a
    process with old modules would import new files.
    """
    connection = socket.socket(fileno=0)
    parent = os.getppid()
    try:
        linux.show(sys.orig_argv, os.environ)
    except OSError as error:
        sys.stderr.write(f"this kernel cannot show the arguments of a fork: {error}\n")
        raise SystemExit(UNABLE) from None
    files = imported()
    before = versions(files)
    gc.collect()
    gc.freeze()  # a collection in a fork would write to each object, and so copy all of its memory
    try:
        connection.send(READY)
        while True:
            message, given, _, _ = socket.recv_fds(connection, len(PLEASE), FILES)
            if not message:
                raise SystemExit(0)
            if versions(files) != before:
                sys.stderr.write("the code has changed: it is imported again\n")
                raise SystemExit(0)
            if _forked(connection):
                connection.close()  # or nobody would notice the end of the process that forks
                break
            for file in given:
                os.close(file)
    except (ConnectionError, KeyboardInterrupt):
        raise SystemExit(0) from None
    return _begun(parent, given)


def _forked(connection: socket.socket) -> bool:
    """Fork, and answer with the process id, or with the negative number of an error. True in the new process."""
    reading, writing = os.pipe()
    intermediate = _fork()
    if intermediate == 0:
        made = _fork()
        if made == 0:
            os.close(reading)
            os.close(writing)
            return True
        os.write(writing, str(made).encode())
        os._exit(0)
    os.close(writing)
    if intermediate > 0:
        os.waitpid(intermediate, 0)  # from now on the new process has another parent
    connection.send(os.read(reading, ANSWER) or str(min(intermediate, -1)).encode())
    os.close(reading)
    return False


def _fork() -> int:
    """As `os.fork`; the negative number of its error."""
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or 1)


def _begun(parent: int, files: list[int]) -> Request:
    """Become what is requested, when we may begin."""
    log, request_file, pipe = files
    if os.read(pipe, len(BEGIN)) != BEGIN:
        os._exit(1)
    linux.end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it has ended before
        os._exit(1)
    null = os.open(os.devnull, os.O_RDWR)
    for number, file in enumerate((null, log, log)):
        os.dup2(file, number)
    request = Request.read(request_file)
    for file in {null, *files} - {0, 1, 2}:
        os.close(file)
    if request.new_session:
        os.setsid()
    if request.namespace is not None:
        linux.enter_network(request.namespace)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.orig_argv = request.arguments
    sys.argv = request.arguments[2:]
    linux.show(request.arguments, request.environment)
    return request
