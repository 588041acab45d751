"""What a node says is signed with the node's key, and is no repeat of something older.

A message that has a MAC has to have the right one. A message without one is accepted from nodes that never signed only:
nodes of earlier versions. Whether a node has signed stands in the log (`NodeLeased`).
"""

import time
from collections.abc import Callable
from typing import TypedDict

from nats.aio.client import Client
from nats.aio.msg import Msg

from handlers.refusals import refusal
from handlers.world.world import World
from runtime import answer_keys, ask_keys
from runtime.bus.responder import Responder
from runtime.node_keys import ANSWER, FRESH, MAC, NodeKeys, answering

#: A challenge that is older is replaced by a new one, before it ends.
RENEWED = FRESH / 3


class Asks(TypedDict):
    """The fields of an answer to a node about questions of gateways."""

    ask_keys: tuple[str, ...]
    answer_keys: tuple[str, ...]


class Unproven(ValueError):
    """The node did not write this message, or wrote it for another time."""


class Proofs:
    """Checks messages of nodes. `keys` None: MACs are not checked (in tests only). `asking`: the event keys from
    which the keys of questions and answers follow.
    """

    def __init__(
        self, world: World, keys: NodeKeys | None, asking: Callable[[], tuple[bytes, ...]] = lambda: ()
    ) -> None:
        self._asking = asking
        self._world = world
        self.keys = keys

    def signed(self, node: str, label: str, subject: str, body: bytes, mac: str | None) -> bool:
        """Whether the node's key has signed this. Raises Unproven if the MAC is wrong, or missing although it signs."""
        if self.keys is None:
            return False
        if mac is None:
            known = self._world.node(node)
            if known is not None and known.signs:
                raise Unproven("it has no MAC, and the node signs")
            return False
        if not self.keys.valid(node, label, subject, body, mac):
            raise Unproven("its MAC is wrong: the node did not write it for this subject")
        return True

    def asks(self, node: str, *, signed: bool) -> Asks:
        """The keys of questions to a node and, if it has signed, of its answers."""
        found = self._asking()
        answers = [answer_keys.derived(each, node) for each in found] if signed and self.keys is not None else []
        return {
            "ask_keys": tuple(ask_keys.public_key(each) for each in found),
            "answer_keys": tuple(answer_keys.sealed(each, self.keys.each(node)) for each in answers if self.keys),
        }

    def new_challenge(self, node: str, purpose: str, given: str) -> tuple[str | None, bool]:
        """A challenge that the node should use next, if any; and whether the given one is valid."""
        assert self.keys is not None
        now = time.time()
        age = self.keys.age(node, purpose, given, now)
        new = self.keys.challenge(node, purpose, now) if age is None or age > RENEWED else None
        return new, age is not None


def mac_of(msg: Msg) -> str | None:
    return (msg.headers or {}).get(MAC)


class SigningResponder(Responder):
    """Answers nodes, so that they know that handlers wrote the answer, to this request."""

    def __init__(self, nc: Client, keys: NodeKeys | None) -> None:
        super().__init__(nc, refusal)
        self._keys = keys

    async def answer(self, msg: Msg, body: bytes, headers: dict[str, str] | None = None) -> None:
        if self._keys is not None:
            node = msg.subject.split(".")[2]
            mac = self._keys.mac(node, ANSWER, msg.subject, answering(msg.data, body))
            headers = {**(headers or {}), MAC: mac}
        await super().answer(msg, body, headers)
