"""Search in the log: by actor, type, resource, operation and time."""

import asyncio
from collections.abc import Mapping
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
from eventstore.log.envelope import Recorded
from gateway.http import parameters
from gateway.http.problems import invalid_parameter
from gateway.reads.reads import listed, page_key
from gateway.state import Gateway, begins, mine
from gateway.words import events as words
from gateway.writes import ANY
from projections import events

#: The value of `order` for the newest first.
DESCENDING = "desc"
#: Short names of event types: `VmStarted` for `nebula.vm.VmStarted`.
SHORT = {topic.rsplit(".", 1)[-1]: topic for topic, _ in event_types()}


class EventView(TypedDict, total=False):
    """An event in CloudEvents' JSON form. A malformed message has `data_base64` in place of `data`.

    `words`: what happened, in a few words; `why`: what caused it, null if the event does not say that. The digest of an
    event covers neither of the two.
    """

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
    words: Required[str]
    why: Required[str | None]


def shown(recorded: Recorded) -> dict[str, Any]:
    """An event as the API shows it."""
    return {**recorded.cloud_event(), "words": words.sentence(recorded), "why": words.cause(recorded)}


async def search(gateway: Gateway, request: Request) -> Response:
    """A page of events, in the order of the log or the newest first. With `wait`, an empty page waits for an event.

    The token of a page belongs to its order: it is that of the same query.
    """
    filters = filters_of(request)
    limit, seconds = parameters.limit(request), parameters.wait(request)
    newest = request.query_params.get("order") == DESCENDING
    key = await page_key(gateway, request, "events")
    after, before = parameters.position(request, "after") or 0, None
    if key is not None:
        after, before = (after, key) if newest else (key, None)
    seen = mine(request, EVENT_READ)
    # whoever may not see all waits for the writes to what it may see: not for those to an id that it guesses
    written = [str(value) for value in filters.values()] if seen is None else seen
    await gateway.fresh(request, *written, kind=ANY)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        bounds, reached = await of_times(gateway, filters)
        found, following, position = await events.page(
            gateway.pool,
            {**filters, **bounds},
            after,
            limit,
            mine=seen,
            begins=begins(gateway, request, EVENT_READ),
            before=before,
            newest=newest,
        )
        position = position if reached is None else min(position, reached)
        remaining = deadline - loop.time()
        if found or remaining <= 0 or gateway.stop.is_set():
            break
        await gateway.position.reach(position + 1, remaining)
    return listed(request, "events", [shown(each) for each in found], following, position)


async def of_times(gateway: Gateway, filters: Mapping[str, Any]) -> tuple[dict[str, int], int | None]:
    """The positions that events of the given times can have, as filters, and the log position that these reflect.

    None if there are no times among the filters.
    """
    since, until = filters.get("from_time"), filters.get("to_time")
    if since is None and until is None:
        return {}, None
    first, last, reached = await gateway.event_times.positions(gateway.pool, since, until, gateway.past.pool)
    return {"first": first, "last": last}, reached


def filters_of(request: Request) -> dict[str, Any]:
    """The filters of a request. Raises Problem."""
    filters: dict[str, Any] = {
        name: parameters.word(request, name) for name in ("project", "vm", "operation", "request")
    }
    id_ = parameters.word(request, "id")
    filters["id"] = id_.lower() if id_ is not None and parameters.UUID.fullmatch(id_.lower()) else id_
    filters["actor"] = parameters.actor(request)
    kind = parameters.word(request, "kind")
    if kind is not None and kind not in NAMES:
        raise invalid_parameter("kind", f"has to be one of {', '.join(NAMES)}")
    type_ = parameters.word(request, "type")
    filters["kind"] = kind
    filters["type"] = SHORT.get(type_, type_) if type_ else None
    filters |= bound(request, "from") | bound(request, "to")
    for name, value in bound(request, "at").items():  # the log as it was: it ended there
        limit = f"to_{name.removeprefix('at_')}"
        filters[limit] = min(value, filters.get(limit, value))
    return {name: value for name, value in filters.items() if value is not None}


def bound(request: Request, name: str) -> dict[str, Any]:
    """One end of a range: a position or a time."""
    value = parameters.moment(request, name)
    if value is None:
        return {}
    return {f"{name}_time" if isinstance(value, datetime) else f"{name}_position": value}
