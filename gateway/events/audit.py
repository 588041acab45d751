"""Search in the log: by actor, type, resource, operation and time."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Required

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.access import EVENT_READ
from domain.base import event_types
from domain.kinds import NAMES
from domain.patterns import SHA256
from gateway.http import parameters
from gateway.http.problems import invalid_parameter
from gateway.reads.reads import listed, page_key
from gateway.state import Gateway, mine
from gateway.writes import ANY
from projections import events

#: Short names of event types: `VmStarted` for `nebula.vm.VmStarted`.
SHORT = {topic.rsplit(".", 1)[-1]: topic for topic, _ in event_types()}


class EventView(TypedDict, total=False):
    """An event in CloudEvents' JSON form. A malformed message has `data_base64` in place of `data`."""

    specversion: Required[str]
    id: Required[str]
    type: Required[str]
    source: Required[str]
    subject: Required[str]
    position: Required[Annotated[int, Field(ge=1)]]
    digest: Required[Annotated[str, Field(pattern=f"^{SHA256}$")]]
    time: str
    actor: str
    aggregateversion: Annotated[int, Field(ge=0)]
    datacontenttype: str
    data: Any
    data_base64: str


async def search(gateway: Gateway, request: Request) -> Response:
    """A page of events, in the order of the log. With `wait`, an empty page waits for the first event."""
    filters = filters_of(request)
    limit, seconds = parameters.limit(request), parameters.wait(request)
    key = await page_key(gateway, request, "events")
    after = (parameters.position(request, "after") or 0) if key is None else key
    seen = mine(request, EVENT_READ)
    # whoever may not see all waits for the writes to what it may see: not for those to an id that it guesses
    written = [str(value) for value in filters.values()] if seen is None else seen
    await gateway.fresh(request, *written, kind=ANY)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        found, following, position = await events.page(gateway.pool, filters, after, limit, mine=seen)
        remaining = deadline - loop.time()
        if found or remaining <= 0 or gateway.stop.is_set():
            break
        await gateway.position.reach(position + 1, remaining)
    return listed(request, "events", [each.cloud_event() for each in found], following, position)


def filters_of(request: Request) -> dict[str, Any]:
    """The filters of a request. Raises Problem."""
    filters: dict[str, Any] = {name: parameters.word(request, name) for name in ("project", "vm", "operation")}
    filters["actor"] = parameters.actor(request)
    kind = parameters.word(request, "kind")
    if kind is not None and kind not in NAMES:
        raise invalid_parameter("kind", f"has to be one of {', '.join(NAMES)}")
    type_ = parameters.word(request, "type")
    filters["kind"] = kind
    filters["type"] = SHORT.get(type_, type_) if type_ else None
    filters |= bound(request, "from") | bound(request, "to")
    return {name: value for name, value in filters.items() if value is not None}


def bound(request: Request, name: str) -> dict[str, Any]:
    """One end of a range: a position or a time."""
    value = parameters.moment(request, name)
    if value is None:
        return {}
    return {f"{name}_time" if isinstance(value, datetime) else f"{name}_position": value}
