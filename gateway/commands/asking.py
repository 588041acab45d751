"""Questions to handlers that are no operations: they are answered at once, by a value."""

from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request

from domain.contract import Caller, CommandRequest, Json
from gateway.commands.commands import PATIENCE, invalid_reply
from gateway.http.problems import LOG_UNAVAILABLE, Problem
from gateway.state import Gateway, caller
from runtime.bus import replies, requests
from runtime.bus.requests import Unanswered

T = TypeVar("T")


async def asked(
    gateway: Gateway, request: Request, subject: str, args: dict[str, Json], read: Callable[[replies.Result], T]
) -> T:
    """The answer of handlers to the caller of a request, converted by `read`.

    Raises requests.Refused, and Problem: 413 if the question is too large, 502 for a malformed answer, 503 without one.
    """
    who = caller(request)
    identity = who.identity
    context = Caller(
        actor=identity.actor,
        credential=identity.credential,
        grants=tuple(identity.access.grants),
        read_only=identity.access.read_only,
        request=who.request,
        traceparent=who.traceparent,
    )
    body = CommandRequest(args=args, context=context).body()
    if len(body) > gateway.nc.max_payload:
        raise Problem(413, "request_too_large", f"a command may have at most {gateway.nc.max_payload} bytes")
    try:
        return await requests.request(gateway.nc, subject, body, PATIENCE, read)
    except Unanswered as error:
        raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
    except replies.InvalidReply as error:
        raise invalid_reply(str(error)) from error
