"""A host joins as a node: with its join token, and proofs of its keys. Handlers decide.

A refused token is a 401 like that of any other credential: it is logged, counted and limited by address.
"""

from typing import Annotated

from pydantic import Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.base import Slug
from domain.contract.joining import Joined, JoinRequest, JoinToken, Proof, PublicKey
from gateway.commands import bodies
from gateway.commands.commands import invalid_reply, passed_on
from gateway.http import content
from gateway.http.problems import LOG_UNAVAILABLE, Problem
from gateway.state import Gateway
from runtime import subjects
from runtime.bus import replies, requests
from runtime.bus.requests import Patience, Unanswered

PATIENCE = Patience(one_try=5.0, in_all=10.0, nobody=3.0)
PROOF = (
    "the signature, in base64url, of the lines `nebula-join 1`, the node, the SHA-256 of the token in hexadecimal "
    "digits, `public_key`, and `guest_key` or `-`"
)


class Join(bodies.Body):
    """`node`: the name of the node for which the token was issued. `public_key`, `guest_key`: of the keys that the host
    has made. `proof`, `guest_proof`: signatures with these keys. A join without them is refused.
    """

    node: Slug
    token: JoinToken
    public_key: Annotated[PublicKey, Field(description="an ed25519 public key in the format of NATS (nkey)")]
    guest_key: Annotated[PublicKey | None, Field(description="another one, of the host's guest-data")] = None
    proof: Annotated[Proof | None, Field(description=PROOF)] = None
    guest_proof: Annotated[Proof | None, Field(description="the same, made with `guest_key`")] = None


class JoinView(TypedDict):
    """The credential of the node: a JWT for its key; empty if the bus needs none. Times are in seconds since 1970.

    `node_key`: the key with which the node checks documents, sealed for its public key, in base64. `guest_credential`:
    a JWT for `guest_key`; empty without that.
    """

    node: str
    credential: str
    expires_at: int
    now: int
    nats_url: str
    nats_ca: str
    node_key: str
    guest_credential: str


async def join(gateway: Gateway, request: Request) -> Response:
    """Let a host join. Raises Problem: 401 for a token or a proof that is not valid."""
    given = Join.model_validate_json(await content.read(request) or b"{}")
    body = JoinRequest(**given.model_dump()).model_dump_json().encode()
    try:
        found = await requests.request(gateway.nc, subjects.JOIN, body, PATIENCE, Joined.model_validate)
    except Unanswered as error:
        raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
    except replies.InvalidReply as error:
        raise invalid_reply(str(error)) from error
    except requests.Refused as error:
        raise refused(error.refusal) from error
    view: JoinView = {
        "node": found.node,
        "credential": found.credential,
        "expires_at": found.expires_at,
        "now": found.now,
        "nats_url": found.nats_url,
        "nats_ca": found.nats_ca,
        "node_key": found.node_key,
        "guest_credential": found.guest_credential,
    }
    return Response(to_json(view), 200, {"Cache-Control": "no-store"}, "application/json")


def refused(refusal: replies.Refusal) -> Problem:
    if refusal.code.startswith("join_"):
        return Problem(401, refusal.code, refusal.detail, headers={"WWW-Authenticate": "Bearer"})
    return passed_on(refusal)
