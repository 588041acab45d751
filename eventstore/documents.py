"""Documents that are kept newest-only, one per subject: what nodes should want."""

import json
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from eventstore.jetstream import WRONG_LAST_SEQUENCE, Conflict, Unavailable


@dataclass(frozen=True, slots=True)
class Document:
    subject: str
    position: int
    body: bytes


class Documents:
    """One stream that holds the newest message of each subject."""

    def __init__(self, nc: Client, stream: str, *, timeout: float = 5.0) -> None:
        self._nc = nc
        self._stream = stream
        self._timeout = timeout

    async def all(self, filter_: str) -> list[Document]:
        """Every document whose subject matches. Raises Unavailable when the server does not answer."""
        found: list[Document] = []
        after = 0
        while True:
            page, more = await self._page(after, filter_)
            found.extend(page)
            if not more:
                return found
            after = page[-1].position

    async def put(self, subject: str, body: bytes, *, last: int) -> int:
        """Replace the document whose position was `last` (0: there was none); returns the new position.

        Raises Conflict when it has been replaced in the meantime.
        """
        headers = {
            "Nats-Expected-Stream": self._stream,
            "Nats-Expected-Last-Subject-Sequence": str(last),
            "content-type": "application/json",
        }
        answer = await self._ask(subject, body, headers)
        problem = answer.get("error")
        if problem is None:
            return int(answer["seq"])
        if problem.get("err_code") == WRONG_LAST_SEQUENCE:
            raise Conflict(subject)
        raise Unavailable(f"the document was not stored: {problem.get('description')}")

    async def drop(self, subject: str) -> None:
        """Remove a document. Doing it twice is doing it once."""
        ask = json.dumps({"filter": subject}).encode()
        answer = await self._ask(f"$JS.API.STREAM.PURGE.{self._stream}", ask, None)
        if "error" in answer:
            raise Unavailable(f"the document was not dropped: {answer['error'].get('description')}")

    async def _ask(self, subject: str, body: bytes, headers: dict[str, str] | None) -> dict[str, Any]:
        try:
            reply = await self._nc.request(subject, body, timeout=self._timeout, headers=headers)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the bus does not answer: {error!r}") from error
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def _page(self, after: int, filter_: str) -> tuple[list[Document], bool]:
        inbox = self._nc.new_inbox()
        ask = json.dumps({"seq": after + 1, "next_by_subj": filter_, "batch": 512}).encode()
        page: list[Document] = []
        try:
            sub = await self._nc.subscribe(inbox)
            try:
                await self._nc.publish(f"$JS.API.DIRECT.GET.{self._stream}", ask, reply=inbox)
                while True:
                    msg = await sub.next_msg(timeout=self._timeout)
                    headers = msg.headers or {}
                    if "Status" in headers:
                        if headers["Status"] not in ("204", "404"):
                            raise Unavailable(f"the documents cannot be read: {headers}")
                        return page, bool(page) and int(headers.get("Nats-Num-Pending", "0")) > 0
                    position = int(headers["Nats-Sequence"])
                    page.append(Document(headers["Nats-Subject"], position, msg.data))
            finally:
                await sub.unsubscribe()
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the bus does not answer: {error!r}") from error
