"""Feeds: the log as Server-Sent Events, resumed exactly, at the pace of each reader.

Each item has `prev`, the position of the previous item in this feed, so a reader can prove that it missed nothing. The
first frame, and the keep-alive comments, have only an `id`: the position to resume at.
A slow reader slows down only its own consumer on the log; nothing is dropped.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from nats.aio.client import Client
from pydantic import BaseModel, StringConstraints
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from domain.access import EVENT_READ
from eventstore.log.envelope import Recorded
from eventstore.log.follow import follow
from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore, Unavailable
from gateway.access import tickets
from gateway.access.identity import Identity
from gateway.commands import bodies
from gateway.http import content, parameters
from gateway.http.parameters import not_found, path_id
from gateway.http.problems import invalid_parameter
from gateway.reads.reads import answer
from gateway.state import Gateway, caller, mine, reflects
from runtime import subjects

#: Seconds without an item after which a feed sends a keep-alive comment.
HEARTBEAT = 10.0
#: Seconds to query the log for the position in a keep-alive comment; after that the comment has none.
PATIENCE = 2.0
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Referrer-Policy": "no-referrer"}


async def everything(gateway: Gateway, request: Request) -> Response:
    """The feed of all events that the caller may see: of the whole log, or of its projects."""
    projects = mine(request, EVENT_READ)
    filters = [subjects.events()] if projects is None else [subjects.events(project) for project in projects]
    return stream(gateway, request, filters, await start(gateway, request))


async def of_project(gateway: Gateway, request: Request) -> Response:
    """The feed of a project: its own events and those of its VMs."""
    after = await start(gateway, request)
    project = path_id(request, "project")
    return await of_resource(gateway, request, subjects.events(project), "project", project, after)


async def of_vm(gateway: Gateway, request: Request) -> Response:
    """The feed of a VM."""
    after = await start(gateway, request)
    project, vm = path_id(request, "project"), path_id(request, "vm")
    return await of_resource(gateway, request, subjects.events(project, "vm", vm), "vm", vm, after)


async def of_resource(gateway: Gateway, request: Request, filter_: str, kind: str, id_: str, after: int) -> Response:
    """The feed of a resource in the log, deleted or not. Raises Problem (404) if the log has no events of it."""
    if await gateway.store.newest(filter_) is None:
        raise not_found(kind, id_)
    return stream(gateway, request, [filter_], after)


def stream(gateway: Gateway, request: Request, filters: list[str], after: int) -> Response:
    reflects(request, after)
    if request.method == "HEAD":
        return StreamingResponse(no_frames(), 200, HEADERS, "text/event-stream")
    return StreamingResponse(
        items(gateway, caller(request).identity, after, filters), 200, HEADERS, "text/event-stream"
    )


async def start(gateway: Gateway, request: Request) -> int:
    """The position after which a feed begins: `Last-Event-ID`, or `after`, or the end of the log, or 0."""
    now = request.query_params.get("from") is not None  # it can have no other value
    after = parameters.position(request, "after")
    if after is not None and now:
        raise invalid_parameter("from", "give either from or after")
    seen = parameters.header(request.scope, "Last-Event-ID")
    if seen is not None:
        return await gateway.within(request, "Last-Event-ID", parameters.digits("Last-Event-ID", seen))
    if now:
        return await gateway.store.last_position()
    return after or 0


async def no_frames() -> AsyncIterator[bytes]:
    """The body of an answer to HEAD. It needs no consumer."""
    none: tuple[bytes, ...] = ()
    for frame in none:
        yield frame


async def items(gateway: Gateway, identity: Identity, after: int, filters: list[str]) -> AsyncIterator[bytes]:
    """The frames of a feed, until the reader disconnects, is no longer a valid caller, or the gateway stops.

    A separate task owns the consumer, and deletes it even if this task is cancelled during a wait.
    """
    batches: asyncio.Queue[list[Recorded]] = asyncio.Queue(maxsize=1)
    pumping = asyncio.create_task(pump(gateway.nc, gateway.store.event_keys, after, filters, batches))
    stopped = asyncio.create_task(gateway.stop.wait())
    lost = asyncio.create_task(gateway.access.lost(identity))
    coming = asyncio.create_task(batches.get())
    gateway.metrics.feeds.inc()
    try:
        yield b": the log, in order\nid: %d\n\n" % after  # even a reader that gets only this frame can resume
        while not (stopped.done() or pumping.done()):
            await asyncio.wait({coming, stopped, pumping, lost}, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                yield b": ended: %b\n\n" % lost.result().code.encode()
                return
            if not coming.done():
                reached = await searched_up_to(gateway.store, after, filters)
                yield b": alive\n\n" if reached is None else b": alive\nid: %d\n\n" % reached
                continue
            for recorded in coming.result():
                yield frame(recorded, after)
                after = recorded.position
                if lost.done():  # the reader may have been slow to take the last item
                    break
            coming = asyncio.create_task(batches.get())
    finally:
        gateway.metrics.feeds.dec()
        stopped.cancel()
        lost.cancel()
        coming.cancel()
        gateway.end(pumping)


async def searched_up_to(store: EventStore, after: int, filters: list[str]) -> int | None:
    """A position up to which a feed has no item after `after`.

    None if it has one, if the log does not answer, or if it is the feed of several projects.
    """
    if len(filters) > 1:
        return None
    try:
        async with asyncio.timeout(PATIENCE):
            end = await store.last_position()
            newest = await store.newest(filters[0])
    except (Unavailable, TimeoutError):
        return None
    return end if newest is None or newest.position <= after else None


async def pump(
    nc: Client, event_keys: EventKeys | None, after: int, filters: list[str], batches: asyncio.Queue[list[Recorded]]
) -> None:
    """Put batches into the queue, at the pace of the reader."""
    async with contextlib.aclosing(follow(nc, after, filters, event_keys=event_keys)) as source:
        async for batch in source:
            await batches.put(batch)


def frame(recorded: Recorded, previous: int) -> bytes:
    """One item in its wire format."""
    event = {**recorded.cloud_event(), "prev": previous}
    kind = " ".join(str(event.get("type", "")).split()).replace("\0", "").encode()
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (recorded.position, kind, to_json(event))


class Ticket(bodies.Body):
    """`path`: the feed that the ticket is for, without a query."""

    path: Annotated[
        str,
        StringConstraints(pattern=r"^/v1/(projects/[a-z0-9-]{1,63}/(vms/[0-9A-Fa-f-]{36}/)?)?feed$", max_length=160),
    ]


class TicketView(BaseModel):
    """A ticket. `position` is the end of the log now: a feed with `?after=<position>` misses no later event."""

    ticket: str
    path: str
    expires_in: int
    position: int


async def ticket(gateway: Gateway, request: Request) -> Response:
    """A ticket for a feed."""
    body = Ticket.model_validate_json(await content.read(request) or b"{}")
    position = await gateway.store.last_position()
    reflects(request, position)
    issued = gateway.tickets.issue(caller(request).identity, body.path)
    view = TicketView(ticket=issued, path=body.path, expires_in=tickets.SECONDS, position=position)
    return answer(view.model_dump(), {"Cache-Control": "no-store"})
