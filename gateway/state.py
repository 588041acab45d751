"""What a gateway holds while it runs, and how its reads become fresh."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client
from starlette.requests import Request

from eventstore.store import EventStore
from gateway import parameters
from gateway.auth import Identity, Tokens
from gateway.heartbeats import Heartbeats
from gateway.metrics import Metrics
from gateway.parked_index import Index
from gateway.problems import Problem
from projections.database import Pool
from projections.position import Position
from runtime import tasks

#: Seconds that `min_position` waits.
PATIENCE = 5.0
#: Seconds that a read waits for what was written through this gateway.
OWN_WRITES = 1.0
MOST_RECENT = 20_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a call, and what it is called in logs and events."""

    identity: Identity
    request: str
    traceparent: str | None


@dataclass
class Gateway:
    """Connections, and what is remembered between calls. All of it can be lost at any time."""

    nc: Client
    store: EventStore
    pool: Pool
    position: Position
    tokens: Tokens
    heartbeats: Heartbeats
    metrics: Metrics
    parked: Index
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    #: what ends by itself, and is not to be forgotten before
    background: set[asyncio.Task[None]] = field(default_factory=set)
    #: what each recent keyed operation created
    created: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _recent: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def end(self, task: asyncio.Task[None]) -> None:
        """End a task without waiting for it."""
        ending = asyncio.create_task(tasks.end([task]))
        self.background.add(ending)
        ending.add_done_callback(self.background.discard)

    def wrote(self, position: int, *ids: str) -> None:
        """Remember that what these ids name was changed at a position."""
        for id_ in ids:
            self._recent[id_] = max(position, self._recent.pop(id_, 0))
        while len(self._recent) > MOST_RECENT:
            self._recent.popitem(last=False)

    def remember(self, operation: str, resource: str) -> None:
        """Remember what an operation creates."""
        self.created[operation] = resource
        if len(self.created) > MOST_RECENT:
            self.created.popitem(last=False)

    async def fresh(self, request: Request, *ids: str) -> None:
        """Wait until the read models reflect what the caller asks for (`min_position`), or what this gateway wrote.

        Raises Problem (503) when `min_position` is not reached in time.
        """
        least = parameters.position(request, "min_position")
        if least is not None:
            if not await self.position.reach(least, PATIENCE):
                raise Problem(
                    503,
                    "position_not_reached",
                    f"the read models stand at {self.position.value}, not yet at {least}; try again",
                )
            return
        written = max((self._recent.get(id_, 0) for id_ in ids), default=0)
        if written > self.position.value:
            await self.position.reach(written, OWN_WRITES)

    async def caught_up(self) -> None:
        """Wait until the read models are as new as the log is now: only then is what they lack not there.

        Raises Problem (503) when that takes too long, Unavailable when the log does not answer.
        """
        end = await self.store.last_position()
        if not await self.position.reach(end, PATIENCE):
            raise Problem(
                503,
                "position_not_reached",
                f"the read models stand at {self.position.value}, the log at {end}; try again",
            )


def caller(request: Request) -> Caller:
    found: Caller = request.scope["nebula.caller"]
    return found


def reflects(request: Request, position: int) -> None:
    """The answer to this call reflects the log up to this position."""
    scope: Any = request.scope
    scope["nebula.reflects"] = position
