"""Records connections to the consoles of VMs as events: before a connection is opened, and after it has ended.

Handlers decide, as for every command. A connection that cannot be recorded is not opened.
"""

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass, field

from domain.access import PLATFORM
from domain.contract import Json
from domain.vm import Console
from gateway.commands import bodies
from gateway.commands.actions import Action
from gateway.commands.commands import ask
from gateway.commands.requested import Requested
from gateway.http.problems import Problem
from gateway.state import Caller, Gateway
from runtime import logs
from runtime.tasks.patience import RETRY

log = logs.get(__name__)

OPEN = Action("GET", "", "vm", "open-console", "", bodies.Body, PLATFORM)
CLOSE = Action("GET", "", "vm", "close-console", "", bodies.Body, PLATFORM)
UNSURE = "it could not be recorded in time, so it was not opened"


@dataclass
class Session:
    """One connection, from the moment when it is requested."""

    project: str
    vm: str
    console: Console
    caller: Caller
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.monotonic)
    begun: bool = False
    unsure: str | None = None

    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 3)

    async def open(self, gateway: Gateway, *, force: bool) -> None:
        """Record that the connection is opened. If this raises Problem, the connection must not be opened."""
        self.begun, self.unsure = True, UNSURE
        try:
            await self._send(gateway, OPEN, {"force": force})
        except Problem as problem:
            self.begun = problem.status == 503  # it may have been recorded despite the error
            raise
        self.unsure = None

    def close(self, gateway: Gateway, why: str | None) -> None:
        """Record in the background that the connection has ended, if its opening may have been recorded."""
        if self.begun:
            task = asyncio.create_task(
                self._record_end(gateway, {"seconds": self.seconds(), "why": self.unsure or why})
            )
            gateway.background.add(task)
            task.add_done_callback(gateway.background.discard)

    async def _record_end(self, gateway: Gateway, values: dict[str, Json]) -> None:
        """Try until the end is recorded, or this gateway stops."""
        for pause in RETRY.pauses():
            stopping = gateway.stop.is_set()
            try:
                await self._send(gateway, CLOSE, values)
                return
            except Problem as problem:
                if stopping or problem.status != 503:
                    log.warning(
                        "the end of a connection is not recorded", session=self.id, vm=self.vm, code=problem.code
                    )
                    return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gateway.stop.wait(), pause)

    async def _send(self, gateway: Gateway, action: Action, values: dict[str, Json]) -> None:
        args = {"session": self.id, "console": self.console, **values}
        requested = Requested(action, self.project, self.vm, None, "", "", args, self.caller)
        reply = await ask(gateway, requested)
        gateway.writes.note(self.caller.identity.actor, "vm", reply.position, self.vm, self.project)
