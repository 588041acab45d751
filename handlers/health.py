"""Whether handlers can do their work: asked as a command is, and answered by the same loop.

`nebula.commands.system.health.check` writes one document to a small stream beside the log, on the same servers and with
as many copies: a full disk shows there as it would with an event. The document replaces the one before, so asking
often makes nothing grow; one answer serves everybody for a second.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic_core import to_json

from domain.contract import HandlersHealth, Json, LogHealth, ManagerStatus, RoleProcess, RoleStatus
from handlers.managers.driver import Status
from runtime import subjects
from runtime.bus.malformed import Malformed
from runtime.process import Process, this
from runtime.text.masking import masked

#: The kind and the verb that are asked for.
KIND, VERB = "health", "check"
#: Seconds that an answer counts; and those in which the document has to be stored.
FRESH, PATIENCE = 1.0, 1.0
#: Bytes of the document: more than a page of a file, so that a full disk cannot hide in the rest of one.
SIZE = 8 * 1024


@dataclass
class Health:
    """Says whether the log's servers can store, how each manager is, and what this process could not read.

    `managers` are asked each time. One of several processes answers, so it says which one it is.
    """

    nc: Client
    managers: Callable[[], Sequence[Status]] = tuple
    malformed: Malformed = field(default_factory=Malformed)
    process: Process = field(default_factory=this)
    _at: float = float("-inf")
    _said: HandlersHealth | None = None
    _since: datetime | None = None
    _asking: asyncio.Lock | None = None

    async def check(self) -> HandlersHealth:
        """The answer, at most a second old."""
        self._asking = self._asking or asyncio.Lock()
        async with self._asking:
            if self._said is None or time.monotonic() - self._at > FRESH:
                self._said = HandlersHealth(
                    log=await self._write(),
                    managers=tuple(told(status) for status in self.managers()),
                    process=self.process.id,
                    malformed=dict(self.malformed.told()),
                )
                self._at = time.monotonic()
            return self._said

    async def _write(self) -> LogHealth:
        """Whether a document could be stored; if not, why and since when."""
        body = to_json({"at": datetime.now(UTC)}).ljust(SIZE)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.nc.jetstream(timeout=PATIENCE).publish(subjects.HEALTH_CHECK, body, stream=subjects.HEALTH)
        except (NatsError, OSError, TimeoutError) as error:
            self._since = self._since or datetime.now(UTC)
            return LogHealth(status="unavailable", detail=str(error) or repr(error), since=self._since)
        self._since = None
        return LogHealth(status="ok")


#: What is said of a manager to anybody who may ask for health: no texts of errors.
TOLD = {"name", "works", "last_run", "last_success", "failing_since", "running", "backing_off"}


def told(status: Status) -> dict[str, Json]:
    return shown(status).model_dump(mode="json", include=TOLD)


@dataclass(frozen=True)
class Word:
    """What this process says of itself every second. `holder`: who has the lease of the managers."""

    process: Process
    position: Callable[[], int]
    holder: Callable[[], Process | None]
    managers: Callable[[], Sequence[Status]]
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self, ends: bool) -> bytes:
        holder = self.holder()
        said = RoleStatus(
            role="handlers",
            process=RoleProcess.model_validate(self.process, from_attributes=True),
            began=self.began,
            ends=ends,
            position=self.position(),
            holder=RoleProcess.model_validate(holder, from_attributes=True) if holder is not None else None,
            managers=tuple(map(shown, self.managers())),
        )
        return said.model_dump_json().encode()


def shown(status: Status) -> ManagerStatus:
    """All that is said of a manager to operators."""
    return ManagerStatus(
        name=status.name,
        works=status.works,
        everywhere=status.everywhere,
        period=status.period,
        last_run=status.last_run,
        last_success=status.last_success,
        last_error=masked(status.last_error) if status.last_error is not None else None,
        failing_since=status.failing_since,
        running=status.running,
        backing_off=status.backing_off,
        items=status.items,
    )
