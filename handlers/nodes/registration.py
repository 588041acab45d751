"""Nodes introduce themselves, each on its own subject; one daemon at a time holds the lease of a node.

The node that a message is about is in its subject, which only that node can publish on. A lease changes hands by an
event of the node; heartbeats renew it in memory. It is taken from nobody who may live: another daemon gets it once the
holder has given it back, was heard by nobody for some time, or is known to have ended (`taken` in
`domain/node/rules.py`).
"""

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from domain import node
from domain.base import Category, Rejected
from domain.contract import Introduction, LeaseGranted, LeaseNote, Leaving
from domain.node import RegisterNode, ReturnLease
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import EventStore
from handlers.apply import apply, now
from handlers.managers.liveness import Liveness
from handlers.nodes.leases import Leases
from handlers.refusals import refusal
from runtime import logs, subjects
from runtime.bus import replies
from runtime.bus.malformed import Malformed
from runtime.bus.replies import Refusal
from runtime.bus.responder import Answer, Responder

log = logs.get(__name__)

QUEUE = "handlers"
#: Refusals that are remembered, so that each is told once.
MOST_TOLD = 1000


class Registration:
    """Answers nodes that register or leave. `lease_seconds`: silence after which a lease may change hands."""

    def __init__(
        self,
        store: EventStore,
        liveness: Liveness,
        leases: Leases,
        lease_seconds: float,
        malformed: Malformed | None = None,
    ) -> None:
        self._store = store
        self._liveness = liveness
        self._leases = leases
        self._lease_seconds = lease_seconds
        self._malformed = malformed or Malformed()
        self._told: dict[tuple[str, str], None] = {}

    async def register(self, node_id: str, said: Introduction) -> LeaseGranted:
        """Make the daemon the one of its node. Raises Rejected, Unavailable."""
        if said.info.node != node_id:
            detail = f"the info is about node {said.info.node}, and was sent by {node_id}"
            raise Rejected("invalid_request", detail, Category.INVALID, field="info.node")
        command = RegisterNode(
            node=node_id,
            at=now(),
            info=said.info,
            daemon=said.daemon,
            heir=said.heir,
            take_over=said.take_over,
            silence=self._liveness.silence_of_holder(node_id),
            patience=self._lease_seconds,
        )
        ref = Ref(subjects.SYSTEM, "node", node_id)
        known = await self._store.load(ref, node.evolve, fresh=True)  # a replica that lags may name an earlier daemon
        by = Context(actor=f"node:{node_id}")
        applied = await apply(self._store, ref, node.decide, node.evolve, command, by, known=known)
        assert applied.state is not None
        for recorded in applied.events:
            log.info("node registered", node=node_id, type=recorded.type, host=said.daemon.host, pid=said.daemon.pid)
        lease, daemon = applied.state.lease, said.daemon
        await self._leases.note(LeaseNote(node=node_id, lease=lease, boot=daemon.boot, identity=daemon.identity))
        return LeaseGranted(lease=lease, seconds=self._lease_seconds)

    async def leave(self, node_id: str, said: Leaving) -> None:
        """Take the lease back, if this daemon has it. Raises Rejected, Unavailable."""
        command = ReturnLease(node=node_id, at=now(), boot=said.boot)
        ref = Ref(subjects.SYSTEM, "node", node_id)
        await apply(self._store, ref, node.decide, node.evolve, command, Context(actor=f"node:{node_id}"))

    async def answered(self, msg: Msg) -> Answer:
        """The answer to a request. Raises ValidationError, Rejected, Unavailable, Conflict."""
        node_id = node_named(msg.subject)
        if msg.subject == subjects.register(node_id):
            granted = await self.register(node_id, Introduction.model_validate_json(msg.data))
            return Answer(replies.accepted(granted))
        await self.leave(node_id, Leaving.model_validate_json(msg.data))
        return Answer(replies.accepted({}))

    def note(self, msg: Msg, error: Exception, refused: Refusal) -> None:
        """Say it once: a daemon that is refused asks again and again."""
        if isinstance(error, ValidationError):
            self._malformed.note("registrations", msg.subject, error)
        said = (msg.subject, refused.detail)
        if said not in self._told:
            log.warning("node refused", subject=msg.subject, code=refused.code, detail=refused.detail)
        self._told.pop(said, None)
        self._told[said] = None
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]

    async def serve(self, nc: Client) -> None:
        """Answer from now on."""
        responder = Responder(nc, refusal)

        async def answer(msg: Msg) -> None:
            if responder.accepts(msg):
                await responder.carry_out(msg, self.answered, self.note)

        for subject in (subjects.REGISTER_OF_ALL, subjects.LEAVE_OF_ALL):
            await nc.subscribe(subject, queue=QUEUE, cb=answer)


def node_named(subject: str) -> str:
    """The node that a request is of. Raises Rejected."""
    try:
        return subjects.token(subjects.node_of(subject))
    except ValueError as error:
        raise Rejected("invalid_request", f"no node has such a name: {error}", Category.INVALID, field="node") from None


async def hear_heartbeats(nc: Client, liveness: Liveness) -> None:
    """Hear every node from now on. A daemon whose lease went to another one is told so, on its reply subject."""
    responder = Responder(nc, refusal)

    async def hear(msg: Msg) -> None:
        lost = liveness.hear(msg.subject, msg.data)
        if lost is not None and msg.reply and responder.accepts(msg):
            await responder.answer(msg, replies.refused(responder.refusal(lost)))

    await nc.subscribe(subjects.HEARTBEATS, cb=hear)
