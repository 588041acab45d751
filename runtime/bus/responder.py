"""Answers requests on the bus: only to inboxes, and always in the same format.

The caller chooses the reply subject. With any subject, a caller could use the responder's right to publish: the answer
would be stored as an event, or taken for a document. So a request whose reply subject is no inbox is not carried out
and not answered, only counted.

Each failure of a request becomes a problem document: a malformed request, an exception that the responder's room
explains (`Explain`), or any other exception, which is a bug in Nebula and is logged with its traceback.
"""

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import ValidationError

from runtime import logs, subjects
from runtime.bus.replies import Refusal, malformed, refused

log = logs.get(__name__)

#: Reply subjects of NATS clients: `_INBOX.` and tokens, possibly with a prefix. `_R_.` and tokens: the server's own
#: name for the inbox of a client in another account.
INBOX = re.compile(rf"(_INBOX(_[A-Za-z0-9]{{1,64}})?|_R_)(\.{subjects.TOKEN.pattern}){{1,6}}")
#: The answer for a bug.
BUG = Refusal(code="internal_error", status=500, detail="this is a bug in Nebula")

Explain = Callable[[Exception], Refusal | None]
"""Converts an exception to the problem for the caller; None if it is a bug in Nebula."""


class Answer(NamedTuple):
    body: bytes
    headers: dict[str, str] | None = None


class Responder:
    """Answers through one connection. `dropped`: number of requests without a valid reply subject."""

    def __init__(self, nc: Client, explain: Explain = lambda _: None) -> None:
        self._nc = nc
        self._explain = explain
        self.dropped = 0

    def accepts(self, msg: Msg) -> bool:
        """Whether the request may be carried out: its reply subject is an inbox."""
        if INBOX.fullmatch(msg.reply or ""):
            return True
        self.dropped += 1
        if (
            self.dropped & (self.dropped - 1) == 0
        ):  # log the 1st, 2nd, 4th, 8th …, so that a flood does not fill the log
            log.warning("request dropped: its reply subject is no inbox", subject=msg.subject, reply=msg.reply)
        return False

    def refusal(self, error: Exception) -> Refusal:
        """The refusal for an exception."""
        found = malformed(error) if isinstance(error, ValidationError) else self._explain(error)
        return BUG if found is None else found

    async def carry_out(
        self,
        msg: Msg,
        work: Callable[[Msg], Awaitable[Answer | None]],
        note: Callable[[Msg, Exception, Refusal], None] | None = None,
    ) -> None:
        """Answer an accepted request with the result of `work`, or with the reason why it failed; then `note` is
        called.

        If `work` returns None, the request is not answered here: another responder does.
        """
        try:
            answer = await work(msg)
        except Exception as error:
            refusal = self.refusal(error)
            if refusal is BUG:
                log.exception("request failed", subject=msg.subject)
            if note is not None:
                note(msg, error, refusal)
            answer = Answer(refused(refusal))
        if answer is not None:
            await self.answer(msg, answer.body, answer.headers)

    async def answer(self, msg: Msg, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Publish the answer to an accepted request. If that fails, it is only logged: the caller can ask again."""
        if not self.accepts(msg):
            return
        try:
            await self._nc.publish(msg.reply, body, headers=headers)
        except NatsError as error:
            log.warning("answer not sent", subject=msg.subject, error=repr(error))
