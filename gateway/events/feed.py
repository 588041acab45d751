"""Feeds: the log as Server-Sent Events, resumed exactly, at the pace of each reader.

Each item has `prev`, the position of the previous item in this feed, so a reader can prove that it missed nothing. The
first frame, and the keep-alive comments, have only an `id`: the position to resume at.
All feeds share one reader of the log (`gateway/hub.py`). One that falls behind it reads alone (`alone.py`), and nothing
is dropped.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, StringConstraints
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from domain.access import EVENT_READ
from gateway.access import tickets
from gateway.access.directory import Directory
from gateway.access.identity import Identity
from gateway.commands import bodies
from gateway.events.alone import LATER, Alone, join, searched_up_to
from gateway.http import content, parameters
from gateway.http.parameters import not_found, path_id
from gateway.http.problems import invalid_parameter
from gateway.hub import Frame, Place, frame
from gateway.reads.reads import answer
from gateway.state import Gateway, begins, caller, mine, reflects
from projections.database import Mine
from runtime import subjects
from runtime.tasks.tasks import happens

#: Seconds without an item after which a feed sends a keep-alive comment.
HEARTBEAT = 10.0
#: Seconds to wait for the hub to start, before the first feed reads alone.
STARTS = 0.25
#: Maximum number of items that are taken at a time, and of bytes that are sent at a time unless one item has more.
AT_A_TIME, CHUNK = 64, 64 * 1024
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Referrer-Policy": "no-referrer"}


async def everything(gateway: Gateway, request: Request) -> Response:
    """The feed of all events that the caller may see: of the whole log, or of its projects."""
    projects = mine(request, EVENT_READ)
    filters = [subjects.events()] if projects is None else [subjects.events(project) for project in projects]
    return stream(gateway, request, filters, await start(gateway, request), projects)


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
    newest = await gateway.store.newest(filter_)
    project = path_id(request, "project")
    again = begins(gateway, request, EVENT_READ)
    if newest is None or newest.position < again.get(project, 0):
        raise not_found(kind, id_)
    seen = mine(request, EVENT_READ)
    return stream(gateway, request, [filter_], after, None if seen is None else [project])


def stream(gateway: Gateway, request: Request, filters: list[str], after: int, projects: Mine) -> Response:
    """`projects`: those of which the caller sees what happened since they were last created; None: it sees all."""
    again = begins(gateway, request, EVENT_READ)  # raises Problem while the gateway cannot know it
    least = min((again.get(project, 0) for project in projects), default=0) if projects is not None else 0
    reflects(request, after)
    if request.method == "HEAD":
        return StreamingResponse(no_frames(), 200, HEADERS, "text/event-stream")
    return StreamingResponse(
        items(gateway, caller(request).identity, after, filters, Earlier(gateway.directory, projects, least)),
        200,
        HEADERS,
        "text/event-stream",
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
    for text in none:
        yield text


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a feed leaves out: events of an earlier project of the same id, which belonged to others.

    `projects`: as of `stream`; `least`: until this position, all are such events.
    """

    directory: Directory | None = None
    projects: Mine = None
    least: int = 0

    def without(self, found: Sequence[Frame]) -> Sequence[Frame]:
        """The frames that the feed has. A project may be created again while it runs."""
        if self.projects is None or self.directory is None:
            return found
        begin = self.directory.begin
        begins = {subjects.events(project): at for project in self.projects if (at := begin(project))}
        if not begins:
            return found
        return [one for one in found if all(one.position >= begins.get(name, 0) for name in one.names)]


async def items(
    gateway: Gateway, identity: Identity, after: int, filters: list[str], earlier: Earlier = Earlier()
) -> AsyncIterator[bytes]:
    """The frames of a feed, until the reader disconnects, is no longer a valid caller, or the gateway stops.

    They are taken from the hub, or while the feed is further behind, from the log itself.
    """
    clock, woken = asyncio.get_running_loop().time, asyncio.Event()
    stopped = asyncio.create_task(gateway.stop.wait())
    lost = asyncio.create_task(gateway.access.lost(identity))
    for task in (stopped, lost):
        task.add_done_callback(lambda _: woken.set())
    place, hub = Place(filters, max(after, earlier.least - 1), woken.set), gateway.hub
    alone: Alone | None = None
    gateway.metrics.feeds.inc()
    hub.enter(place)
    try:
        yield b": the log, in order\nid: %d\n\n" % after  # even a reader that gets only this frame can resume
        spoke = clock()
        if hub.start is None:
            await happens(woken, STARTS)
        while not stopped.done():
            woken.clear()
            if lost.done():
                yield b": ended: %b\n\n" % lost.result().code.encode()
                return
            hub.settle(place)
            if hub.has(place):
                if alone is not None:
                    alone.close()
                    alone = None
                found = hub.take(place, AT_A_TIME)
            else:
                alone = alone or Alone(gateway, place)
                found = [frame(recorded) for recorded in alone.take(place)]
            for chunk, last in chunks(earlier.without(found), after):
                yield chunk
                after, spoke = last, clock()
                if lost.done() or stopped.done():  # the reader may have been slow to take it
                    break
            if found:
                if clock() - spoke >= HEARTBEAT:  # all of it was left out
                    yield b": alive\nid: %d\n\n" % place.position
                    spoke = clock()
                continue
            if alone is None:
                hub.wait(place)
                if not await happens(woken, HEARTBEAT):
                    hub.settle(place)
                    yield b": alive\nid: %d\n\n" % place.position
            elif alone.ended():
                return
            elif not await happens(woken, alone.idle) and not await join(gateway.store, hub, place):
                hub.enter(place)
                alone.idle = LATER
                if clock() - spoke >= HEARTBEAT:
                    reached = await searched_up_to(gateway.store, after, filters)
                    yield b": alive\n\n" if reached is None else b": alive\nid: %d\n\n" % reached
                    spoke = clock()
    finally:
        gateway.metrics.feeds.dec()
        hub.leave(place)
        stopped.cancel()
        lost.cancel()
        if alone is not None:
            alone.close()


def chunks(found: Sequence[Frame], previous: int) -> Iterator[tuple[bytes, int]]:
    """Frames joined to chunks, each with the position of its last frame. `previous`: that of the item before."""
    chunk: list[bytes] = []
    size = 0
    for one in found:
        if size + len(one.text) > CHUNK and chunk:
            yield b"".join(chunk), previous
            chunk, size = [], 0
        chunk.append(one.after(previous))
        size += len(one.text)
        previous = one.position
    if chunk:
        yield b"".join(chunk), previous


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
