"""A process that checks ranges of the log for `verify log`, so that all processors are used.

It gets its keys and then the ranges on standard input, answers on standard output, and ends when the input ends. Each
message is a pickled value after its length. Only the process that started it can write there.
"""

import asyncio
import pickle
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple, Self

from eventstore.integrity.sound import Checker, Sound
from eventstore.log.macs import Key, Keys
from runtime.bus.bulk import Bytes

_LENGTH = struct.Struct(">Q")


class Orders(NamedTuple):
    """What a process needs to know. `keys`: the event keys by id, each with the last position that it may sign."""

    keys: dict[str, tuple[bytes, int | None]] | None
    signer: str
    since: int
    foreign: tuple[str, ...]

    @classmethod
    def of(cls, keys: Keys | None, foreign: Sequence[str]) -> Self:
        if keys is None:
            return cls(None, "", 0, tuple(foreign))
        known = {id_: (key.secret, key.until) for id_, key in keys.by_id.items()}
        return cls(known, keys.signer, keys.since, tuple(foreign))

    def checker(self) -> Checker:
        if self.keys is None:
            return Checker(None, self.foreign)
        keys = {id_: Key(secret, until) for id_, (secret, until) in self.keys.items()}
        return Checker(Keys(keys, self.signer, self.since), self.foreign)


class Worker:
    """One process. It checks one range at a time."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, orders: Orders) -> Self:
        """Raises OSError."""
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdin=PIPE, stdout=PIPE)
        worker = cls(process)
        worker.send(orders)
        return worker

    async def check(self, first: int, messages: Sequence[Bytes]) -> Sound | None:
        """As `Checker.check`. Raises OSError or EOFError if the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.send((first, messages))
        await self._process.stdin.drain()
        length = _LENGTH.unpack(await self._process.stdout.readexactly(_LENGTH.size))[0]
        answer = await self._process.stdout.readexactly(length)
        found: Sound | None = pickle.loads(answer)  # noqa: S301 - our own process wrote it
        return found

    def send(self, value: object) -> None:
        """Write to the process, without waiting until it reads."""
        assert self._process.stdin is not None
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._process.stdin.writelines([_LENGTH.pack(len(data)), data])

    async def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


def serve(source: IO[bytes], target: IO[bytes]) -> None:
    """Answer until the input ends."""
    orders: Orders = _read(source)
    checker = orders.checker()
    with suppress(EOFError, BrokenPipeError):
        while True:
            first, messages = _read(source)
            data = pickle.dumps(checker.check(first, messages), pickle.HIGHEST_PROTOCOL)
            target.write(_LENGTH.pack(len(data)) + data)
            target.flush()


def _read(source: IO[bytes]) -> Any:
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return pickle.loads(source.read(_LENGTH.unpack(head)[0]))  # noqa: S301 - only our parent can write here


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
