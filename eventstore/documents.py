"""Documents in a stream that keeps only the newest message of each subject: wanted documents, leases."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

from nats.aio.client import Client
from nats.errors import Error as NatsError

from eventstore.log.envelope import Recorded
from eventstore.log.group import GroupCommit
from eventstore.log.jetstream import Message, Stream, Unavailable
from eventstore.log.received import EXPECTED
from runtime.bus.api import api
from runtime.node_keys import MAC


@dataclass(frozen=True, slots=True)
class Document:
    subject: str
    position: int
    body: bytes
    stored_at: datetime = field(compare=False)
    mac: str | None = field(default=None, compare=False)


def document_of(stored: Recorded) -> Document:
    return Document(stored.subject, stored.position, stored.body, stored.stored_at, stored.headers.get(MAC))


class Documents:
    """One stream that holds the newest message of each subject. `timeout` (seconds) bounds each call."""

    def __init__(self, nc: Client, stream: str, *, timeout: float = 5.0) -> None:
        self._nc = nc
        self._stream = Stream(nc, stream, timeout=timeout)
        self._group = GroupCommit(self._stream)
        self._timeout = timeout

    @property
    def connection(self) -> int:
        """A number that changes with each reconnection: the server may be another one, or may have lost a write."""
        return self._nc.stats["reconnects"]

    async def all(self, filter_: str) -> list[Document]:
        """All documents on subjects that match the filter. Raises Unavailable if the server does not answer."""
        stored = await self._stream.read(0, filter_)
        return [document_of(each) for each in stored]

    async def pages(self, filter_: str) -> AsyncIterator[list[Document]]:
        """The same, page by page. A document that is replaced meanwhile may come twice, the newer one last."""
        after, more = 0, True
        while more:
            stored, more = await self._stream.page(after, filter_)
            after = stored[-1].position if stored else after
            yield [document_of(each) for each in stored]

    async def put(self, subject: str, body: bytes, *, last: int, mac: str | None = None) -> int:
        """Replace the document at position `last` (0: there was none). Returns the new position.

        Documents that are put at the same time are stored in groups; the outcome of one does not depend on the others.
        Raises Conflict if it has been replaced in the meantime, Unavailable if the outcome is unknown.
        """
        headers = {
            "Nats-Expected-Stream": self._stream.name,
            EXPECTED: str(last),
            "content-type": "application/json",
        }
        if mac is not None:
            headers[MAC] = mac
        return await self._group.append([Message(subject, headers, body)])

    async def drop(self, subject: str) -> None:
        """Remove a document. A repeat does nothing.

        If the server is killed soon after, it may bring back the last document. So a document that must not come back
        is overwritten first, and removed much later.
        """
        ask = json.dumps({"filter": subject}).encode()
        try:
            purge = api(self._nc, f"STREAM.PURGE.{self._stream.name}")
            reply = await self._nc.request(purge, ask, timeout=self._timeout)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the bus does not answer: {error!r}") from error
        answer = json.loads(reply.data)
        if "error" in answer:
            raise Unavailable(f"the document was not removed: {answer['error'].get('description')}")
