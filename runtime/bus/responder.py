"""Answering requests on the bus: only to inboxes, and each in one form.

Who asks names the subject of the answer. Were it any subject, a caller could have a stranger's right to publish: the
answer would be stored as an event, or taken for a document. So a request with any other reply subject is not carried
out, not answered, and counted.

Whatever goes wrong with a request becomes one problem document: what is malformed, what the room of the responder
explains (`Explain`), and the rest, which is a fault of ours and is logged with its traceback.
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

#: The subjects that clients of NATS make for their answers: `_INBOX.` and tokens, perhaps with a prefix of their own.
INBOX = re.compile(rf"_INBOX(_[A-Za-z0-9]{{1,64}})?(\.{subjects.TOKEN.pattern}){{1,6}}")
#: What is said of a fault of ours.
BUG = Refusal(code="internal_error", status=500, detail="this is a bug in Nebula")

Explain = Callable[[Exception], Refusal | None]
"""The problem that an exception is to who asked; None where it is a fault of ours."""


class Answer(NamedTuple):
    body: bytes
    headers: dict[str, str] | None = None


class Responder:
    """Answers through one connection. `dropped` counts the requests that could not be answered."""

    def __init__(self, nc: Client, explain: Explain = lambda _: None) -> None:
        self._nc = nc
        self._explain = explain
        self.dropped = 0

    def accepts(self, msg: Msg) -> bool:
        """Whether the request may be carried out: it can be answered."""
        if INBOX.fullmatch(msg.reply or ""):
            return True
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a flood does not fill the log
            log.warning("request dropped: its reply subject is no inbox", subject=msg.subject, reply=msg.reply)
        return False

    def refusal(self, error: Exception) -> Refusal:
        """What is said of an exception."""
        found = malformed(error) if isinstance(error, ValidationError) else self._explain(error)
        return BUG if found is None else found

    async def carry_out(
        self,
        msg: Msg,
        work: Callable[[Msg], Awaitable[Answer | None]],
        note: Callable[[Msg, Exception, Refusal], None] | None = None,
    ) -> None:
        """Answer a request that was accepted with what `work` says, or with why it fails; `note` is told why.

        Where `work` says None, the request is left to others who hear it.
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
        """Publish the answer to a request that was accepted. One that cannot be sent is left: the caller asks again."""
        if not self.accepts(msg):
            return
        try:
            await self._nc.publish(msg.reply, body, headers=headers)
        except NatsError as error:
            log.warning("answer not sent", subject=msg.subject, error=repr(error))
