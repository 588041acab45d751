"""Only gateways may ask this node. A question is signed for its subject, and for a challenge that this node made.

A sender without a challenge gets one, and repeats its question with it. So no clock matters, and no question can be
sent again, to this node or to another one.
"""

from itertools import zip_longest
from typing import NoReturn

from nats.aio.msg import Msg

from node_daemon.asks.sessions import Denied
from runtime import logs
from runtime.ask_keys import CHALLENGE, NEW, SIGNATURE, Challenges, signer

log = logs.get(__name__)


class NeedsChallenge(Denied):
    """The question has to be repeated with a challenge."""


class AskProofs:
    """Checks the questions to one node. `required`: whether they have to be signed: the node has its key. `refused`:
    number of questions that no gateway asked, or that were repeated.
    """

    def __init__(self) -> None:
        self.required = False
        self.refused = 0
        #: the public keys of gateways, each with the key of this node's answers; None: handlers of an earlier version
        self._keys: dict[str, bytes | None] = {}
        self._challenges = Challenges()

    def learn(self, keys: tuple[str, ...], answers: tuple[bytes | None, ...] = ()) -> None:
        """Handlers have named the keys of gateways, and those of the answers to them. Earlier versions name none."""
        self._keys = dict(zip_longest(keys, answers[: len(keys)])) or self._keys

    def new_challenge(self) -> str:
        return self._challenges.new()

    def check(self, msg: Msg) -> bytes | None:
        """The key of the answer; None if it needs none. Raises Denied, and NeedsChallenge, unless a gateway asks this,
        now and for the first time.
        """
        if not self.required:
            return None
        if not self._keys:
            detail = "the node does not know the keys of gateways yet; try again when handlers answer it"
            raise Denied("ask_refused", detail, 503)
        headers = msg.headers or {}
        challenge, signature = headers.get(CHALLENGE, ""), headers.get(SIGNATURE, "")
        if challenge == NEW and not signature:
            raise NeedsChallenge("ask_unsigned", "the question needs a signature for the node's challenge", 503)
        key = signer(self._keys, msg.subject, challenge, msg.data, signature)
        if key is None:
            self._refuse(msg, "no gateway signed it for this subject")
        if not self._challenges.fresh(challenge):
            self._refuse(msg, "it is a repeat, or too old")
        self._challenges.use(challenge)
        return self._keys[key]

    def _refuse(self, msg: Msg, why: str) -> NoReturn:
        self.refused += 1
        if self.refused & (self.refused - 1) == 0:  # the 1st, 2nd, 4th …: a flood does not fill the log
            log.warning("question refused", subject=msg.subject, error=why, times=self.refused)
        detail = f"the node refuses the question: {why}; do gateway and handlers have the same event keys?"
        raise Denied("ask_refused", detail, 503)
