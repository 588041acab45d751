"""Records in the log what was done to the streams with the credential of maintenance, for auditors.

The authority of the bus hears it from the servers, and sends it. Nobody else but maintenance itself can send it.
"""

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from domain.maintenance import RecordMaintenance, decide, evolve
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import EventStore
from handlers.apply import apply
from handlers.nodes.registration import QUEUE
from handlers.refusals import refusal
from runtime import logs, subjects
from runtime.bus import replies
from runtime.bus.accounts.maintained import Maintained
from runtime.bus.accounts.table import MAINTAINED, ROLES
from runtime.bus.malformed import Malformed
from runtime.bus.replies import Refusal
from runtime.bus.responder import Answer, Responder

log = logs.get(__name__)

KIND = "maintenance"


async def record(store: EventStore, what: Maintained) -> None:
    """Append the record, if it is new. Raises Unavailable, Conflict, ValidationError."""
    command = RecordMaintenance(maintenance=what.id, **what.model_dump(exclude={"id", "role"}))
    role = what.role if what.role in ROLES else "bus"  # a credential that this version does not know
    context = Context(actor=f"system:{role}")
    await apply(store, Ref(subjects.SYSTEM, KIND, what.id), decide, evolve, command, context)


async def serve(nc: Client, store: EventStore, malformed: Malformed) -> None:
    """Answer requests from now on."""
    responder = Responder(nc, refusal)

    async def work(msg: Msg) -> Answer:
        await record(store, Maintained.model_validate_json(msg.data))
        return Answer(replies.accepted({}))

    def note(msg: Msg, error: Exception, refused: Refusal) -> None:
        if isinstance(error, ValidationError):
            malformed.note(KIND, msg.subject, error)
        log.warning("maintenance of the bus is not recorded", code=refused.code, detail=refused.detail)

    async def answer(msg: Msg) -> None:
        if responder.accepts(msg):
            await responder.carry_out(msg, work, note)

    await nc.subscribe(MAINTAINED, queue=QUEUE, cb=answer)
