"""Other processes that compute for this one, so that all processors are used.

A process runs `python -m MODULE`, whose main function calls `serve`. It reads requests from standard input and answers
each on standard output, in order, until the input ends. Each message is a value of marshal after its length: only these
two processes write there.
"""

import asyncio
import fcntl
import marshal
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Self

_LENGTH = struct.Struct(">Q")
_BUFFER, _PIPE = 16 * 1024**2, 1024**2
"""Bytes of an answer that are read ahead, and bytes that a pipe holds: large ones need fewer turns."""

Value = Any
"""Anything that marshal can write: None, numbers, text, bytes, and tuples, lists and dictionaries of them."""


class Worker:
    """One process. It answers one request at a time."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, module: str, orders: Value) -> Self:
        """Start `python -m module`, and send its orders. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module), stdin=PIPE, stdout=PIPE, limit=_BUFFER
        )
        worker = cls(process)
        worker.send(orders)
        return worker

    async def ask(self, request: Value) -> Value:
        """The answer to a request. Raises OSError or EOFError if the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.send(request)
        await self._process.stdin.drain()
        length = _LENGTH.unpack(await self._process.stdout.readexactly(_LENGTH.size))[0]
        return marshal.loads(await self._process.stdout.readexactly(length))  # noqa: S302 - our own process wrote it

    def send(self, value: Value) -> None:
        """Write to the process, without waiting until it reads."""
        assert self._process.stdin is not None
        data = marshal.dumps(value)
        self._process.stdin.writelines([_LENGTH.pack(len(data)), data])

    async def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


def serve(prepare: Callable[[Value], Callable[[Value], Value]]) -> None:
    """Answer requests until the input ends. `prepare` gets the orders, and returns the function that answers."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    for stream in (source, target):
        with suppress(OSError):  # uvloop passes sockets, which are large enough
            fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, _PIPE)
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        answer = prepare(_read(source))
        while True:
            data = marshal.dumps(answer(_read(source)))
            target.write(_LENGTH.pack(len(data)))
            target.write(data)
            target.flush()


def _read(source: IO[bytes]) -> Value:
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return marshal.loads(source.read(_LENGTH.unpack(head)[0]))  # noqa: S302 - only our parent can write here
