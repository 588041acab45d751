"""Registration of nodes, each on its own subject. One daemon at a time has the lease of a node.

The node is named in the subject, on which only that node can publish. A lease is granted by an event of the node;
heartbeats renew it in memory. Another daemon gets the lease only once the holder has returned it, has sent no heartbeat
for some time, or is known to have ended (`lease` in `domain/node/rules.py`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from domain import node
from domain.base import Category, Rejected
from domain.contract import Challenged, Introduction, LeaseGranted, LeaseNote, Leaving
from domain.node import RegisterNode, ReturnLease
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import EventStore
from handlers.apply import apply, now
from handlers.managers.liveness import Liveness
from handlers.nodes.consumers import provide
from handlers.nodes.leases import Leases
from handlers.proofs import Asks, Proofs, SigningResponder, Unproven, mac_of
from runtime import logs, subjects
from runtime.bus import replies
from runtime.bus.malformed import Malformed
from runtime.bus.replies import Refusal
from runtime.bus.responder import Answer
from runtime.node_keys import LEAVE, REGISTER

log = logs.get(__name__)

QUEUE = "handlers"
#: Maximum number of refusals that are kept, so that each is logged once.
MOST_LOGGED = 1000
#: Maximum number of requests that are answered at a time.
AT_A_TIME = 64
#: Seconds after which a node does not wait any more for the answer to its registration.
GIVEN_UP = 5.0


async def nothing(_: str) -> None:
    """The default of what a node gets with its lease."""


class Registration:
    """Answers nodes that register or leave. `lease_seconds`: silence after which another daemon may get a lease.
    `proofs` None: what nodes send is not checked (in tests only). `keyed`: a node that is new has to sign.
    """

    def __init__(
        self,
        store: EventStore,
        liveness: Liveness,
        leases: Leases,
        lease_seconds: float,
        malformed: Malformed | None = None,
        proofs: Proofs | None = None,
        *,
        keyed: bool = False,
    ) -> None:
        self._store = store
        self._liveness = liveness
        self._leases = leases
        self._lease_seconds = lease_seconds
        self._malformed = malformed or Malformed()
        self._proofs = proofs
        self._keyed = keyed
        self._logged: dict[tuple[str, str], None] = {}
        self._provide: Callable[[str], Awaitable[None]] = nothing
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._tasks: set[asyncio.Task[None]] = set()

    async def register(self, node_id: str, request: Introduction, *, signed: bool = False) -> LeaseGranted | Challenged:
        """Register the node, and grant its lease to the daemon. A signed request needs a challenge that was made after
        the latest lease was granted, so that an earlier daemon's request cannot be sent again. Raises Rejected,
        Unavailable.
        """
        if request.info.node != node_id:
            detail = f"the info is about node {request.info.node}, but node {node_id} sent it"
            raise Rejected("invalid_request", detail, Category.INVALID, field="info.node")
        ref = Ref(subjects.SYSTEM, "node", node_id)
        known = await self._store.load(ref, node.evolve, fresh=True)  # a replica that lags may name an earlier daemon
        latest = known.state.lease if known.state is not None else 0
        if signed and (new := self._challenge(node_id, latest, request.challenge)) is not None:
            return Challenged(challenge=new, **self._asks(node_id, signed=True))
        command = RegisterNode(
            node=node_id,
            at=now(),
            info=request.info,
            daemon=request.daemon,
            heir=request.heir,
            take_over=request.take_over,
            silence=self._liveness.silence_of_holder(node_id),
            patience=self._lease_seconds,
            signed=signed,
            keyed=self._keyed,
            latest=latest if signed else None,
        )
        context = Context(actor=f"node:{node_id}")
        applied = await apply(self._store, ref, node.decide, node.evolve, command, context, known=known)
        assert applied.state is not None
        lease, daemon = applied.state.lease, request.daemon
        for recorded in applied.events:
            log.info("node registered", node=node_id, type=recorded.type, host=daemon.host, pid=daemon.pid)
        await self._leases.note(LeaseNote(node=node_id, lease=lease, boot=daemon.boot, identity=daemon.identity))
        return LeaseGranted(lease=lease, seconds=self._lease_seconds, **self._asks(node_id, signed=signed))

    async def leave(self, node_id: str, request: Leaving, *, signed: bool = False) -> None:
        """Take the lease back, if this daemon has it. Raises Rejected, Unavailable."""
        command = ReturnLease(node=node_id, at=now(), boot=request.boot, signed=signed)
        ref = Ref(subjects.SYSTEM, "node", node_id)
        await apply(self._store, ref, node.decide, node.evolve, command, Context(actor=f"node:{node_id}"))

    async def reply(self, msg: Msg) -> Answer:
        """The reply to a request. Raises ValidationError, Rejected, Unavailable, Conflict."""
        node_id = node_named(msg.subject)
        if msg.subject == subjects.register(node_id):
            introduction = Introduction.model_validate_json(msg.data)
            signed = self._signed(node_id, REGISTER, msg)
            found = await self.register(node_id, introduction, signed=signed)
            if isinstance(found, LeaseGranted):
                await self._provide(node_id)
            return Answer(replies.accepted(found))
        leaving = Leaving.model_validate_json(msg.data)
        await self.leave(node_id, leaving, signed=self._signed(node_id, LEAVE, msg))
        return Answer(replies.accepted({}))

    def _asks(self, node_id: str, *, signed: bool) -> Asks:
        if self._proofs is None:
            return {"ask_keys": (), "answer_keys": ()}
        return self._proofs.asks(node_id, signed=signed)

    def _challenge(self, node_id: str, latest: int, given: str) -> str | None:
        """The challenge that a registration needs; None if the given one is valid."""
        if self._proofs is None:
            return None
        new, valid = self._proofs.new_challenge(node_id, f"{REGISTER} {latest}", given)
        return None if valid else new

    def _signed(self, node_id: str, label: str, msg: Msg) -> bool:
        """Whether the node has signed a request. Raises Rejected if the MAC is wrong."""
        if self._proofs is None:
            return False
        try:
            return self._proofs.signed(node_id, label, msg.subject, msg.data, mac_of(msg))
        except Unproven as error:
            raise Rejected(
                "node_unsigned", f"the request is not from node {node_id}: {error}", Category.FORBIDDEN
            ) from error

    def note(self, msg: Msg, error: Exception, refused: Refusal) -> None:
        """Log a refusal once: a daemon that is refused repeats its request."""
        if isinstance(error, ValidationError):
            self._malformed.note("registrations", msg.subject, error)
        elif refused.code == "node_unsigned":
            self._malformed.note("registrations", msg.subject, refused.detail)
        entry = (msg.subject, refused.detail)
        if entry not in self._logged:
            log.warning("node refused", subject=msg.subject, code=refused.code, detail=refused.detail)
        self._logged.pop(entry, None)
        self._logged[entry] = None
        if len(self._logged) > MOST_LOGGED:
            del self._logged[next(iter(self._logged))]

    async def serve(self, nc: Client) -> None:
        """Answer requests from now on, AT_A_TIME at a time, so that their appends are stored in groups.

        After a power cut many nodes register at the same time. A request that nobody waits for any more is dropped:
        otherwise its node would ask again before each answer, and no node would ever be registered.
        """
        responder = SigningResponder(nc, self._proofs.keys if self._proofs is not None else None)
        self._provide = partial(provide, nc)

        async def in_turn(msg: Msg, arrived: float) -> None:
            async with self._turns:
                if time.monotonic() - arrived < GIVEN_UP or not msg.subject.endswith(".register"):
                    await responder.carry_out(msg, self.reply, self.note)

        async def answer(msg: Msg) -> None:
            if responder.accepts(msg):
                task = asyncio.create_task(in_turn(msg, time.monotonic()))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        for subject in (subjects.REGISTER_OF_ALL, subjects.LEAVE_OF_ALL):
            await nc.subscribe(subject, queue=QUEUE, cb=answer)


def node_named(subject: str) -> str:
    """The node that sent a request. Raises Rejected."""
    try:
        return subjects.token(subjects.node_of(subject))
    except ValueError as error:
        detail = f"this cannot be the name of a node: {error}"
        raise Rejected("invalid_request", detail, Category.INVALID, field="node") from None


async def hear_heartbeats(nc: Client, liveness: Liveness) -> None:
    """Receive the heartbeats of all nodes from now on. A daemon that has lost its lease gets a refusal as reply."""
    responder = SigningResponder(nc, liveness.proofs.keys)

    async def hear(msg: Msg) -> None:
        heard = liveness.hear(msg.subject, msg.data, mac_of(msg))
        if heard is None or not msg.reply or not responder.accepts(msg):
            return
        if isinstance(heard, Rejected):
            await responder.answer(msg, replies.refused(responder.refusal(heard)))
        else:
            await responder.answer(msg, replies.accepted(heard))

    await nc.subscribe(subjects.HEARTBEATS, cb=hear)
