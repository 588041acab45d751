"""Hosts that join: a join token is exchanged for the credential of a node. Nodes renew it with their own key.

The gateway passes on the token as it came, so that nobody who only reads the log, which has its digest, can use it. A
renewal is on a subject of the node, on which only its credential can publish. A refusal is logged each time.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from domain.base import Category, Rejected
from domain.contract.joining import Joined, JoinRequest, RenewRequest
from domain.enrollment import Enrollment, JoinNode, JoinTokenReused, decide, evolve, fingerprint_of, token_used
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import EventStore
from handlers.apply import apply, now
from handlers.nodes.registration import QUEUE, node_named
from handlers.refusals import refusal
from runtime import logs, possession, subjects
from runtime.bus import replies
from runtime.bus.malformed import Malformed
from runtime.bus.replies import Refusal
from runtime.bus.responder import Answer, Responder
from runtime.node_keys import NodeKeys
from runtime.sealed import seal

log = logs.get(__name__)

Signer = Callable[[str, str, int], str]
"""Makes a JWT from the name of a node, a public key, and the second since 1970 at which it expires."""


def unsigned(_: str, __: str, ___: int) -> str:
    """For a bus without accounts: there is no credential."""
    return ""


@dataclass(frozen=True)
class Signers:
    """Make the credentials of a node, and of its guest-data."""

    node: Signer = unsigned
    guest_data: Signer = unsigned


@dataclass(frozen=True)
class Bus:
    """Where nodes reach the bus: the servers, and their authority in PEM (empty without TLS)."""

    url: str
    authority: str = ""


class Joining:
    """Answers hosts that join, and nodes that renew. `seconds`: how long a credential is valid."""

    def __init__(
        self,
        store: EventStore,
        bus: Bus,
        sign: Signers,
        seconds: float,
        keys: NodeKeys,
        malformed: Malformed | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._sign = sign
        self._seconds = seconds
        self._keys = keys
        self._malformed = malformed or Malformed()

    async def join(self, request: JoinRequest) -> Joined:
        """Use the token. Raises Rejected, Unavailable, Conflict."""
        node = request.node
        sealed = self._sealed(node, request.public_key)  # a key that is none does not use up the token
        digest = hashlib.sha256(request.token.encode()).hexdigest()
        if request.guest_key is not None:
            self._sealed(node, request.guest_key, "guest_key")  # it has to be a key
        check_possession(request, digest)
        command = JoinNode(
            enrollment=node, at=now(), digest=digest, public_key=request.public_key, guest_key=request.guest_key
        )
        known = await self._store.load(ref(node), evolve, fresh=True)  # a replica that lags may not know the token
        context = Context(actor=f"node:{node}")
        applied = await apply(self._store, ref(node), decide, evolve, command, context, known=known)
        if any(isinstance(event, JoinTokenReused) for _, event in applied.decoded):
            raise token_used(node)
        log.info("node joined", node=node, key=fingerprint_of(request.public_key), repeat=not applied.events)
        return self._joined(node, request.public_key, request.guest_key, sealed)

    async def renew(self, node: str, request: RenewRequest) -> Joined:
        """A new credential for the node's key, if it is valid. Raises Rejected, Unavailable."""
        found: Enrollment | None = (await self._store.load(ref(node), evolve, fresh=True)).state
        key = found.valid_key if found is not None else None
        if key is None or key.public_key != request.public_key:
            raise Rejected("enrollment_revoked", f"this key of node {node} was revoked; join again with a new token")
        log.info("credential of a node renewed", node=node, key=key.fingerprint)
        return self._joined(node, key.public_key, key.guest_key, self._sealed(node, key.public_key))

    def _sealed(self, node: str, public_key: str, field: str = "public_key") -> str:
        """The key of a node, which only its host can open: the answer passes others. Raises Rejected."""
        try:
            return seal(public_key, self._keys.of(node))
        except ValueError as error:
            why = f"{error}: make it with `nebula node join`"
            raise Rejected("invalid_public_key", why, field=field) from error

    def _joined(self, node: str, public_key: str, guest_key: str | None, sealed: str) -> Joined:
        began = int(time.time())
        expires = began + int(self._seconds)
        return Joined(
            node=node,
            credential=self._sign.node(node, public_key, expires),
            guest_credential=self._sign.guest_data(node, guest_key, expires) if guest_key is not None else "",
            expires_at=expires,
            now=began,
            nats_url=self._bus.url,
            nats_ca=self._bus.authority,
            node_key=sealed,
        )

    async def reply(self, msg: Msg) -> Answer:
        """The reply to a request. Raises ValidationError, Rejected, Unavailable, Conflict."""
        if msg.subject == subjects.JOIN:
            return Answer(replies.accepted(await self.join(JoinRequest.model_validate_json(msg.data))))
        node = node_named(msg.subject)
        return Answer(replies.accepted(await self.renew(node, RenewRequest.model_validate_json(msg.data))))

    def note(self, msg: Msg, error: Exception, refused: Refusal) -> None:
        if isinstance(error, ValidationError):
            self._malformed.note("joins", msg.subject, error)
        log.warning("join refused", subject=msg.subject, code=refused.code, detail=refused.detail)

    async def serve(self, nc: Client) -> None:
        """Answer requests from now on."""
        responder = Responder(nc, refusal)

        async def answer(msg: Msg) -> None:
            if responder.accepts(msg):
                await responder.carry_out(msg, self.reply, self.note)

        for subject in (subjects.JOIN, subjects.RENEW_OF_ALL):
            await nc.subscribe(subject, queue=QUEUE, cb=answer)


def check_possession(request: JoinRequest, digest: str) -> None:
    """Raises Rejected unless the host has shown that the public keys that it sends are its own.

    Otherwise it could name the key of another node, which would lose its credential when this one is revoked.
    """
    text = possession.text(request.node, digest, request.public_key, request.guest_key)
    keys = [("public_key", request.public_key, request.proof)]
    if request.guest_key is not None:
        keys.append(("guest_key", request.guest_key, request.guest_proof))
    for field, key, proof in keys:
        if proof is None:
            why = (
                "the host did not prove that it has the key that it sends, as hosts of earlier versions: install the "
                "version of the platform there, and run the same `nebula node join` again; the token was not used"
            )
            raise Rejected("join_proof_missing", why, Category.UNAUTHORIZED, field=field)
        if not possession.is_proven(key, text, proof):
            why = "the proof is not of this key, or is for another token, node or key; run `nebula node join` again"
            raise Rejected("join_proof_invalid", f"{why}; the token was not used", Category.UNAUTHORIZED, field=field)


def ref(node: str) -> Ref:
    """The aggregate of a node's enrollment."""
    return Ref(subjects.SYSTEM, "enrollment", node)
