"""Revokes credentials of nodes when handlers ask for it: the role `authority`, beside the keys of the bus.

A revocation is written down first, so that a server that cannot take it now has it from its next start on.
"""

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import BaseModel, ConfigDict

from runtime import logs
from runtime.bus import replies, requests
from runtime.bus.accounts.authority import Authority, NotPushed
from runtime.bus.accounts.table import REVOKE, Account
from runtime.bus.replies import Refusal, Result
from runtime.bus.requests import Patience
from runtime.bus.responder import Answer, Responder

log = logs.get(__name__)

PATIENCE = Patience(one_try=10.0)
#: A key is of one of them. It is revoked in both, so that nobody has to know in which.
OF_NODES = (Account.NODES, Account.GUESTS)
FAILED = Refusal(code="not_revoked", status=503, detail="the servers of the bus did not take the revocation; try again")


class Revocation(BaseModel):
    """The public key of a node or its guest-data, whose credentials are worth nothing from now on."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    public_key: str


async def serve(nc: Client, system: Client, authority: Authority) -> None:
    """Answer requests from now on. `nc`, `system`: connections of the roles `authority` and `system`."""

    def explained(error: Exception) -> Refusal | None:
        return FAILED if isinstance(error, NotPushed | NatsError | TimeoutError | OSError) else None

    responder = Responder(nc, explained)

    async def revoke(msg: Msg) -> Answer:
        asked = Revocation.model_validate_json(msg.data)
        for which in OF_NODES:
            if asked.public_key not in authority.revoked().get(which, {}):
                authority.revoke(asked.public_key, which)
                log.info("credential of a node revoked", key=asked.public_key, account=which.value)
        for which in OF_NODES:
            await authority.push(system, which)
        return Answer(replies.accepted({}))

    async def answer(msg: Msg) -> None:
        if responder.accepts(msg):
            await responder.carry_out(msg, revoke)

    await nc.subscribe(REVOKE, cb=answer)


async def ask(nc: Client, public_key: str) -> None:
    """Have a key revoked. Raises Unanswered, requests.Refused, InvalidReply."""

    def nothing(_: Result) -> None:
        return

    await requests.request(nc, REVOKE, Revocation(public_key=public_key).model_dump_json().encode(), PATIENCE, nothing)
