"""The store of the vault's wrapped keys: one subject per key. Erasing a key overwrites it on the disks of the servers.

A NATS key-value bucket cannot do that: it forbids deleting single messages, and purged messages stay in its files. Here
a key is erased in two steps: a tombstone (an empty message) is stored, then each earlier message of the subject is
deleted by JetStream's secure delete, which overwrites its bytes. After a crash between the two steps, `names` still
lists the key.

With several replicas, each server also has the message in its Raft log until it compacts that log (docs/integrity.md).
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from eventstore.log.group import GroupCommit
from eventstore.log.jetstream import Conflict, Message, Stream, Unavailable
from eventstore.log.received import EXPECTED
from runtime import subjects
from runtime.bus import bulk
from runtime.bus.api import api
from runtime.bus.headers import parsed
from runtime.bus.quick_client import QuickClient

NOT_FOUND = 404
#: Maximum number of keys that are read with one request.
MOST_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored value of a key. `value` is None if the key was erased."""

    value: bytes | None
    revision: int


class KeyStore:
    """Wrapped keys by name, on the stream NEBULA_VAULT. `timeout` (seconds) bounds each call.

    All methods raise Unavailable when the server does not answer.
    """

    def __init__(self, nc: Client, *, timeout: float = 5.0) -> None:
        self._nc = nc
        self._stream = Stream(nc, subjects.VAULT, timeout=timeout)
        self._group = GroupCommit(self._stream)
        self._timeout = timeout
        self._asked: list[tuple[str, asyncio.Future[Entry | None]]] = []
        self._reading: asyncio.Task[None] | None = None

    async def get(self, name: str) -> Entry | None:
        """The newest value, read from the stream's leader; None if there never was one."""
        found = await self._stream.last_of(subjects.vault_key(name))
        return Entry(found.body or None, found.position) if found is not None else None

    async def get_soon(self, name: str) -> Entry | None:
        """As `get`, but calls at the same time share one request. A replica may answer it that lags for a moment."""
        answer: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self._asked.append((name, answer))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_asked())
        return await answer

    async def values_of(self, names: Sequence[str]) -> dict[str, bytes]:
        """The newest values of these keys, as far as they are quickly found. A replica may answer that lags.

        Missing are keys that were erased or never stored, and all of them while the server does not answer.
        """
        found: dict[str, bytes] = {}
        if isinstance(self._nc, QuickClient):
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                for start in range(0, len(names), MOST_TOGETHER):
                    some = [subjects.vault_key(name) for name in names[start : start + MOST_TOGETHER]]
                    what = {"multi_last": some, "batch": len(some)}
                    for headers, value in await bulk.ask(self._nc, self._stream.name, what, self._timeout):
                        subject = (parsed(headers) or {}).get("Nats-Subject", "")
                        found[subject.rpartition(".")[2]] = value
        return {name: found[name] for name in names if found.get(name)}

    async def _read_asked(self) -> None:
        try:
            while self._asked:
                some, self._asked = self._asked[:MOST_TOGETHER], self._asked[MOST_TOGETHER:]
                try:
                    found = await self._newest(tuple({name for name, _ in some}))
                except Exception as error:
                    for _, answer in some:
                        if not answer.done():
                            answer.set_exception(error)
                else:
                    for name, answer in some:
                        if not answer.done():
                            answer.set_result(found[name])
        finally:
            self._reading = None

    async def _newest(self, names: Sequence[str]) -> dict[str, Entry | None]:
        """The newest values. Those that the replica does not have are read from the stream's leader."""
        found: dict[str, Entry | None] = {}
        if len(names) > 1:
            for recorded in await self._stream.newest_of([subjects.vault_key(name) for name in names]):
                entry = Entry(recorded.body or None, recorded.position)
                found[recorded.subject.rsplit(".", 1)[-1]] = entry
        missing = [name for name in names if name not in found]
        return found | dict(zip(missing, await asyncio.gather(*map(self.get, missing)), strict=True))

    async def values(self, name: str) -> list[Entry]:
        """All stored values of a key, the newest first. Anybody on the bus may have stored one after the real value."""
        newest = await self._stream.last_of(subjects.vault_key(name))
        if newest is None:
            return []
        found = await self._stream.read(0, newest.subject, at_least=newest.position)
        return [Entry(recorded.body or None, recorded.position) for recorded in reversed(found)]

    async def put(self, name: str, value: bytes, *, last: int) -> int:
        """Replace the value of revision `last` (0: there was none). Returns the new revision.

        Earlier values are erased. Raises Conflict if somebody else has stored a value in the meantime, or erased the
        key.
        """
        subject = subjects.vault_key(name)
        headers = {"Nats-Expected-Stream": self._stream.name, EXPECTED: str(last)}
        revision = await self._group.append([Message(subject, headers, value)])
        if last:
            await self.erase_earlier(name, revision)
        return revision

    async def erase(self, name: str) -> None:
        """Erase the key for ever: no key can be stored under this name again. Safe to repeat."""
        while True:
            found = await self.get(name)
            revision = found.revision if found else 0
            try:
                if found is None or found.value is not None:
                    revision = await self.put(name, b"", last=revision)
            except Conflict:
                continue
            await self.erase_earlier(name, revision)
            return

    async def names(self) -> set[str]:
        """The names of keys of which any bytes are stored."""
        found = await self._stream.read(0, subjects.VAULT_KEYS)
        return {recorded.subject.rsplit(".", 1)[-1] for recorded in found if recorded.body}

    async def erase_earlier(self, name: str, revision: int) -> None:
        """Erase all values before this revision; a crash may have left some. Safe to repeat."""
        position = 0
        while True:
            found = await self._stream.next_of(subjects.vault_key(name), position)
            if found is None or found.position >= revision:
                return
            await self._delete(found.position)
            position = found.position

    async def _delete(self, position: int) -> None:
        """Overwrite one message on the disk of each server that stores it."""
        subject = api(self._nc, f"STREAM.MSG.DELETE.{self._stream.name}")
        ask = json.dumps({"seq": position, "no_erase": False}).encode()
        try:
            answer = json.loads((await self._nc.request(subject, ask, timeout=self._timeout)).data)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the vault does not answer: {error!r}") from error
        problem = answer.get("error")
        if problem is not None and problem.get("code") != NOT_FOUND:
            raise Unavailable(f"a key was not erased: {problem.get('description')}")


async def adopt(nc: Client) -> int:
    """Move the keys of an earlier version out of their key-value bucket, then delete the bucket. Returns their number.

    It can be interrupted anywhere and repeated: the bucket is deleted when all keys are in the new stream. Raises
    Unavailable and nats.errors.Error.
    """
    bucket, store, moved = f"KV_{subjects.KEYS}", KeyStore(nc), 0
    js = nc.jetstream()
    try:
        await js.stream_info(bucket)
    except NotFoundError:
        return 0
    source, position = Stream(nc, bucket), 0
    while (found := await source.next_of(f"$KV.{subjects.KEYS}.*", position)) is not None:
        position = found.position
        with contextlib.suppress(Conflict):  # it was moved before
            await store.put(found.subject.rsplit(".", 1)[-1], found.body, last=0)
            moved += 1
    with contextlib.suppress(NotFoundError):  # another process has deleted it
        await js.delete_stream(bucket)
    return moved
