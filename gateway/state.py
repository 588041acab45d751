"""The state of a running gateway, and how its reads wait for earlier writes."""

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats.aio.client import Client
from starlette.requests import Request

from domain.access import Permission
from eventstore.log.keyring import Keyring
from eventstore.log.store import EventStore
from gateway.access.attempts import Attempts, IssuerSilent
from gateway.access.auth import Authentication
from gateway.access.directory import Directory
from gateway.access.identity import Identity
from gateway.access.pepper import Pepper
from gateway.access.refusals import Refusals
from gateway.access.sessions import Sessions
from gateway.access.sites import Sites
from gateway.access.tickets import Tickets
from gateway.access.uses import Uses
from gateway.endings import Endings
from gateway.http import parameters
from gateway.http.problems import Problem, invalid_parameter
from gateway.http.security_headers import SecurityHeaders
from gateway.hub import Hub
from gateway.monitoring.health_memory import HealthMemory
from gateway.monitoring.heartbeats import Heartbeats
from gateway.monitoring.metrics import Metrics
from gateway.monitoring.parked_index import Index
from gateway.monitoring.roles import Roles
from gateway.monitoring.unreadable import Unreadable
from gateway.writes import Writes
from projections.database import NEVER, Begins, Mine, Pool, answers
from projections.event_times import EventTimes
from projections.marks import Kept
from projections.position import Position
from runtime.bus.pace import Pace
from runtime.process import Process, this
from runtime.tasks import tasks
from runtime.tasks.essential import Essential

if TYPE_CHECKING:
    from gateway.access.oidc import Issuer

#: Seconds that `min_position` waits.
PATIENCE = 5.0
#: Seconds that a read waits for the caller's own writes.
OWN_WRITES = 5.0
#: Bounds of the seconds until a command is sent again: a process of handlers that was killed does not answer.
REPEATED, UNANSWERED = 0.5, 2.5
#: How far a time from a caller may be ahead of this clock.
SKEW = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a call, and the call's id in logs and events."""

    identity: Identity
    request: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Past:
    """The rows of the past: connections for queries, and the position that they are at."""

    pool: Pool
    position: Position = field(default_factory=Position)


@dataclass
class Gateway:
    """Connections, and values that are kept between calls. All of these may be lost at any time without harm."""

    nc: Client
    store: EventStore
    pool: Pool
    position: Position
    past: Past
    access: Authentication
    directory: Directory
    pepper: Pepper
    uses: Uses
    refusals: Refusals
    heartbeats: Heartbeats
    metrics: Metrics
    parked: Index
    roles: Roles
    sites: Sites
    sessions: Sessions
    attempts: Attempts
    headers: SecurityHeaders
    event_keys: Keyring
    #: the certificate (PEM) of the platform's authority
    authority: bytes | None = None
    #: the file with the public keys of the signed checkpoints
    checkpoint_keys: Path | None = None
    issuer: "Issuer | None" = None
    process: Process = field(default_factory=this)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    unreadable: Unreadable = field(default_factory=Unreadable)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    essential: Essential = field(default_factory=Essential)
    health: HealthMemory = field(default_factory=HealthMemory)
    #: tasks that end by themselves; stored here so that they are not garbage-collected before
    background: set[asyncio.Task[None]] = field(default_factory=set)
    #: when a command is sent again that nobody has answered
    pace: Pace = field(default_factory=lambda: Pace(REPEATED, UNANSWERED))
    writes: Writes = field(default_factory=Writes)
    tickets: Tickets = field(default_factory=Tickets)
    hub: Hub = field(init=False)
    event_times: EventTimes = field(default_factory=EventTimes)
    #: counts of events in ranges that are wholly in the past
    marks: Kept = field(default_factory=Kept)
    endings: Endings = field(init=False)

    def __post_init__(self) -> None:
        self.endings = Endings(self.pool, self.position, self.stop)
        self.hub = Hub(self.nc, self.store)

    def end(self, task: asyncio.Task[None]) -> None:
        """End a task without waiting for it."""
        ending = asyncio.create_task(tasks.end([task]))
        self.background.add(ending)
        ending.add_done_callback(self.background.discard)

    def end_at_issuer(self, revoking: Coroutine[Any, Any, None]) -> None:
        """Revoke a refresh token without waiting for it: the session has ended here, whatever the issuer says."""

        async def revoke() -> None:
            with suppress(IssuerSilent):
                await revoking

        task = asyncio.create_task(revoke())
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    async def judge(self, request: Request, names: Iterable[str]) -> None:
        """Refuse positions and times that the log has not reached, before the resource is looked up.

        `names`: the parameters that hold a position or a time. A range may begin with the next event (`from`).
        Raises Problem (400), and Unavailable if the log does not answer.
        """
        if not request.scope["query_string"]:
            return
        for name in names:
            moment = parameters.moment(request, name)
            if isinstance(moment, int):
                await self.within(request, name, moment - 1 if name == "from" else moment)
            elif moment is not None:
                await self._not_after_now(request, name, moment)

    async def fresh(self, request: Request, *ids: str, kind: str | None = None, patience: float = 0.0) -> None:
        """Wait until the read models reflect `min_position`, and what was written through this gateway.

        These are all writes to the resources with these `ids`, and for a list of a `kind` (or ANY) the caller's own
        writes. `patience`: wait at least so many seconds for these writes, because the caller waits longer anyway.
        Raises Problem (503) if one of the positions is not reached in time.
        """
        least = parameters.position(request, "min_position")
        if least is not None:
            await self._reached(least, PATIENCE, "not yet at {}")
            needs(request, least)
        written = self.writes.named(*ids)
        if kind is not None:
            written = max(written, self.writes.by(caller(request).identity.actor, kind))
        await self._reached(written, max(OWN_WRITES, patience), "and your earlier writes are at {}")
        needs(request, written)

    async def _reached(self, position: int, seconds: float, what: str) -> None:
        """Wait for the read models. `what`: text for the problem.

        Raises Problem (503) after a time-out, ReadModelsUnavailable.
        """
        if position <= self.position.value or await self.position.reach(position, seconds):
            return
        await answers(self.pool)  # raises ReadModelsUnavailable if Postgres is the cause
        raise behind(self.position.value, what.format(position))

    async def within(self, request: Request, name: str, position: int) -> int:
        """Returns the position if the log has reached it. Raises Problem (400), which says where the log ends.

        Positions that this gateway has acknowledged or read are accepted, even if a lagging server answers now.
        """
        if position > max(self.writes.newest, self.position.value):
            end = max(await self.store.last_position(), self.position.value)  # the rows may have moved meanwhile
            if position > end:
                raise beyond(request, name, end)
        return position

    async def _not_after_now(self, request: Request, name: str, moment: datetime) -> None:
        """Refuse a time that is in the future. Raises Problem (400).

        Clocks differ: the time of the newest event is accepted, and a time up to SKEW ahead of this clock.
        """
        if moment > datetime.now(UTC) + SKEW:
            newest = await self.store.newest()
            if newest is None or moment > newest.moment:
                raise beyond(request, name, await self.store.last_position(), "is in the future: ")

    async def caught_up(self, request: Request | None = None) -> None:
        """Wait until the read models reflect the present end of the log. Then a resource that they lack does not exist.

        Raises Problem (503) after a time-out, Unavailable if the log does not answer.
        """
        end = await self.store.last_position()
        await self._reached(end, PATIENCE, "the log at {}")
        if request is not None:
            needs(request, end)


def beyond(request: Request, name: str, end: int, why: str = "") -> Problem:
    """The refusal of a position or time beyond the end of the log. It says where the log ends."""
    reflects(request, end)
    return invalid_parameter(name, f"{why}the log ends at position {end}")


def caller(request: Request) -> Caller:
    found: Caller = request.scope["nebula.caller"]
    return found


def mine(request: Request, permission: Permission) -> Mine:
    """The projects in which the caller has a permission, for queries; None stands for all."""
    projects = caller(request).identity.access.projects(permission)
    return None if projects is None else sorted(projects)


def begins(gateway: Gateway, request: Request, permission: Permission) -> Begins:
    """Of the projects in which the caller has a permission, those that were deleted and created again, with the
    position of that: what was before belonged to others, with the same id.

    Empty for whoever sees all projects: it sees those too. Raises Problem (503) if it cannot be known yet.
    """
    seen = mine(request, permission)
    return NEVER if seen is None else gateway.directory.begins(seen)


def reflects(request: Request, position: int) -> None:
    """Note the log position that the answer to this call reflects."""
    scope: Any = request.scope
    scope["nebula.reflects"] = position


def needs(request: Request, position: int) -> None:
    """Note that the rows for this answer have to reflect a position."""
    scope: Any = request.scope
    scope["nebula.needs"] = max(position, scope.get("nebula.needs", 0))


def rows_reflect(request: Request, position: int) -> None:
    """Note the log position of the rows in this answer. Raises Problem (503) if they are older than this read needs.

    A wait before the query is not enough: since the gateway read the checkpoint, Postgres may have lost its newest
    transactions in a crash, or older read models may have replaced the live ones.
    """
    least = request.scope.get("nebula.needs", 0)
    if position < least:
        raise behind(position, f"not yet at {least}")
    reflects(request, position)


def behind(position: int, what: str) -> Problem:
    return Problem(503, "position_not_reached", f"the read models are at {position}, {what}; try again")
