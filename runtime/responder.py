"""Answering requests on the bus: only to inboxes.

Who asks names the subject of the answer. Were it any subject, a caller could have a stranger's right to publish: the
answer would be stored as an event, or taken for a document. So a request with any other reply subject is not carried
out, not answered, and counted.
"""

import re

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from runtime import logs

log = logs.get(__name__)

#: The subjects that clients of NATS make for their answers: `_INBOX.` and tokens, perhaps with a prefix of their own.
INBOX = re.compile(r"_INBOX(_[A-Za-z0-9]{1,64})?(\.[A-Za-z0-9_-]{1,128}){1,6}")


class Responder:
    """Answers through one connection. `dropped` counts the requests that could not be answered."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self.dropped = 0

    def accepts(self, msg: Msg) -> bool:
        """Whether the request may be carried out: it can be answered."""
        if INBOX.fullmatch(msg.reply or ""):
            return True
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a flood does not fill the log
            log.warning("request dropped: its reply subject is no inbox", subject=msg.subject, reply=msg.reply)
        return False

    async def answer(self, msg: Msg, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Publish the answer to a request that was accepted. One that cannot be sent is left: the caller asks again."""
        if not self.accepts(msg):
            return
        try:
            await self._nc.publish(msg.reply, body, headers=headers)
        except NatsError as error:
            log.warning("answer not sent", subject=msg.subject, error=repr(error))
