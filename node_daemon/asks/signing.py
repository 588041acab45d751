"""The MACs of this node's answers, and the keys of the sessions that its answers open."""

from functools import partial

from nats.aio.client import Client
from nats.aio.msg import Msg

from node_daemon.asks.sessions import SessionKey
from runtime.answer_keys import mac, session_key
from runtime.ask_keys import CHALLENGE
from runtime.bus.responder import Explain, Responder
from runtime.node_keys import MAC


def session_keys(key: bytes | None, question: Msg) -> SessionKey | None:
    """The keys of a session that a signed question asks for; None if the answer has no key."""
    return partial(session_key, key, (question.headers or {})[CHALLENGE]) if key is not None else None


class SigningResponder(Responder):
    """Answers a signed question, so that the gateway knows that this node wrote the answer. `key` None: no MAC."""

    def __init__(self, nc: Client, explain: Explain, key: bytes | None) -> None:
        super().__init__(nc, explain)
        self._key = key

    async def answer(self, msg: Msg, body: bytes, headers: dict[str, str] | None = None) -> None:
        if self._key is not None:
            found = headers or {}
            headers = {**found, MAC: mac(self._key, msg.subject, msg.headers or {}, msg.data, found, body)}
        await super().answer(msg, body, headers)
