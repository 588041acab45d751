"""The calls with which a page of the console begins, reads and ends its session (`access/sessions.py`)."""

from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel
from starlette.requests import Request
from starlette.responses import Response

from gateway.access.attempts import IssuerSilent, SignInRefused
from gateway.access.sessions import Session, TooLong
from gateway.http.problems import Problem
from gateway.reads.reads import answer
from gateway.state import Gateway, caller

NOT_STORED = {"Cache-Control": "no-store"}


class SessionView(BaseModel):
    """A session. `csrf`: the value of the header X-CSRF-Token of calls that change something.

    `expires_in`: seconds until `expires_at`. `renewable`: whether POST /v1/session/renew would make it longer.
    """

    principal: str
    csrf: str
    expires_at: AwareDatetime
    expires_in: int
    renewable: bool


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


async def renew(gateway: Gateway, request: Request) -> Response:
    """Make the session of this call longer. Raises Problem: 404, 409 if the issuer gives no token, 503, 422."""
    session, codes = own(request), gateway.issuer.codes if gateway.issuer is not None else None
    if codes is None or session.refresh is None or not session.renewable:
        raise Problem(409, "session_not_renewable", "this session cannot be made longer: sign in again")
    try:
        found = await codes.renewed(session.refresh)
    except SignInRefused as error:
        raise Problem(409, "renewal_refused", f"{error.why}: sign in again") from error
    except IssuerSilent as error:
        raise Problem(503, "issuer_away", f"the issuer does not answer: {error}") from error
    if found.identity.actor != caller(request).identity.actor:
        raise Problem(409, "renewal_refused", "the issuer's new token is somebody else's: sign in again")
    ends = found.identity.ends.timestamp() if found.identity.ends is not None else None
    try:
        longer, cookie = gateway.sessions.renew(session, found.token, ends, found.refresh)
    except TooLong as error:
        raise Problem(422, "token_too_long", str(error), [("Authorization", str(error))]) from error
    return answer(view(gateway, request, longer), {**NOT_STORED, "Set-Cookie": cookie})


async def end(gateway: Gateway, request: Request) -> Response:
    """End the session of this call. Raises Problem (404)."""
    session = own(request)
    if session.refresh is not None and gateway.issuer is not None and gateway.issuer.codes is not None:
        gateway.end_at_issuer(gateway.issuer.codes.revoke(session.refresh))
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
        expires_in=max(0, session.ends - int(gateway.sessions.now())),
        renewable=session.renewable,
    )
    return found.model_dump()
