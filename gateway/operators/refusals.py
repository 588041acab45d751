"""Refused calls over HTTP, for auditors."""

from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from gateway.http import parameters
from gateway.reads.reads import listed
from gateway.state import Gateway


class RefusalView(TypedDict):
    """A refused call. Without a known caller, `credential` is the id in the token that was sent, if it has one.

    For what a server of the bus refuses (codes `bus_…`): a subject instead of a path; `count`: how often in a second.
    """

    at: datetime
    status: int
    code: str
    address: str
    credential: str | None
    actor: str | None
    method: str
    path: str
    request: str
    count: int


async def refusals(gateway: Gateway, request: Request) -> Response:
    """A page of refused calls, the newest first, of all gateways."""
    before, limit = parameters.page_token(request, "refusals"), parameters.limit(request)
    filters = {"address": parameters.word(request, "address"), "credential": parameters.word(request, "credential")}
    found = gateway.refusals.newest(before, filters, limit + 1)
    items = [refusal.model_dump(mode="json") for _, refusal in found[:limit]]
    following = found[limit - 1][0] if len(found) > limit else None
    return listed(request, "refusals", items, following, gateway.position.value)
