"""The calls with which a page of the console begins, reads and ends its session (`access/sessions.py`)."""

from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel
from starlette.requests import Request
from starlette.responses import Response

from gateway.access.sessions import Session, TooLong
from gateway.http.problems import Problem
from gateway.reads.reads import answer
from gateway.state import Gateway, caller

NOT_STORED = {"Cache-Control": "no-store"}


class SessionView(BaseModel):
    """A session. `csrf`: the value of the header X-CSRF-Token of calls that change something."""

    principal: str
    csrf: str
    expires_at: AwareDatetime


async def begin(gateway: Gateway, request: Request) -> Response:
    """Begin a session with the token of this call. Raises Problem (422) without a token, or if it is too long."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        detail = "begin a session with a token: send `Authorization: Bearer <token>`"
        raise Problem(422, "token_needed", detail, [("Authorization", detail)])
    identity = caller(request).identity
    ends = identity.ends.timestamp() if identity.ends is not None else None
    try:
        session, cookie = gateway.sessions.begin(token.strip(), ends)
    except TooLong as error:
        raise Problem(422, "token_too_long", str(error), [("Authorization", str(error))]) from error
    return answer(view(gateway, request, session), {**NOT_STORED, "Set-Cookie": cookie})


async def current(gateway: Gateway, request: Request) -> Response:
    """The session of this call. Raises Problem (404)."""
    return answer(view(gateway, request, own(request)), NOT_STORED)


async def end(gateway: Gateway, request: Request) -> Response:
    """End the session of this call. Raises Problem (404)."""
    session = own(request)
    return answer(view(gateway, request, session), {**NOT_STORED, "Set-Cookie": gateway.sessions.end(session)})


def own(request: Request) -> Session:
    session: Session | None = request.scope.get("nebula.session")
    if session is None:
        raise Problem(404, "session_not_found", "this call has no session: begin one with POST /v1/session")
    return session


def view(gateway: Gateway, request: Request, session: Session) -> dict[str, object]:
    found = SessionView(
        principal=caller(request).identity.actor,
        csrf=gateway.sessions.csrf(session),
        expires_at=datetime.fromtimestamp(session.ends, UTC),
    )
    return found.model_dump()
