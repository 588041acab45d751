"""Only gateways may ask this node. A question is signed for its subject, and for a challenge that this node made.

A sender without a challenge gets one, and repeats its question with it. So no clock matters, and no question can be
sent again, to this node or to another one.
"""

from nats.aio.msg import Msg

from node_daemon.asks.sessions import Denied
from runtime import logs
from runtime.ask_keys import CHALLENGE, NEW, SIGNATURE, Challenges, valid

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
        self._keys: tuple[str, ...] = ()
        self._challenges = Challenges()

    def learn(self, keys: tuple[str, ...]) -> None:
        """Handlers have named the keys of gateways. Handlers of an earlier version name none."""
        self._keys = keys or self._keys

    def new_challenge(self) -> str:
        return self._challenges.new()

    def check(self, msg: Msg) -> None:
        """Raises Denied, and NeedsChallenge, unless a gateway asks this, now and for the first time."""
        if not self.required:
            return
        if not self._keys:
            detail = "the node does not know the keys of gateways yet; try again when handlers answer it"
            raise Denied("ask_refused", detail, 503)
        headers = msg.headers or {}
        challenge, signature = headers.get(CHALLENGE, ""), headers.get(SIGNATURE, "")
        if challenge == NEW and not signature:
            raise NeedsChallenge("ask_unsigned", "the question needs a signature for the node's challenge", 503)
        if not valid(self._keys, msg.subject, challenge, msg.data, signature):
            self._refuse(msg, "no gateway signed it for this subject")
        if not self._challenges.fresh(challenge):
            self._refuse(msg, "it is a repeat, or too old")
        self._challenges.use(challenge)

    def _refuse(self, msg: Msg, why: str) -> None:
        self.refused += 1
        if self.refused & (self.refused - 1) == 0:  # the 1st, 2nd, 4th …: a flood does not fill the log
            log.warning("question refused", subject=msg.subject, error=why, times=self.refused)
        detail = f"the node refuses the question: {why}; do gateway and handlers have the same event keys?"
        raise Denied("ask_refused", detail, 503)
