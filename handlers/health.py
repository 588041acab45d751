"""The health check of handlers. It is a command, which the command loop answers.

`nebula.commands.system.health.check` writes one document to a small stream on the log's servers, with as many replicas
as the log: so a full disk is noticed as it would be with an event. The document replaces the one before, so the stream
does not grow. One result is used for a second.
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
from handlers.world.newer import Newer
from runtime import subjects
from runtime.bus.malformed import Malformed
from runtime.process import Process, this
from runtime.text.masking import masked
from runtime.version import VERSION

#: The kind and the verb in the subject of the command.
KIND, VERB = "health", "check"
#: Seconds for which a result is used; seconds in which the document has to be stored.
FRESH, PATIENCE = 1.0, 1.0
#: Bytes of the document. It is larger than a page of a file, so it cannot be stored in the rest of one on a full disk.
SIZE = 8 * 1024


@dataclass
class Health:
    """Reports whether the log's servers can store, the status of each manager, and malformed messages of this process.

    Any of several processes may answer, so the result has the id of the process.
    """

    nc: Client
    managers: Callable[[], Sequence[Status]] = tuple
    malformed: Malformed = field(default_factory=Malformed)
    process: Process = field(default_factory=this)
    _at: float = float("-inf")
    _result: HandlersHealth | None = None
    _since: datetime | None = None
    _checking: asyncio.Lock | None = None

    async def check(self) -> HandlersHealth:
        """The result, at most a second old."""
        self._checking = self._checking or asyncio.Lock()
        async with self._checking:
            if self._result is None or time.monotonic() - self._at > FRESH:
                self._result = HandlersHealth(
                    log=await self._write(),
                    managers=tuple(public_status(status) for status in self.managers()),
                    process=self.process.id,
                    malformed=dict(self.malformed.counts()),
                )
                self._at = time.monotonic()
            return self._result

    async def _write(self) -> LogHealth:
        """Whether the document could be stored; if not, why, and since when."""
        body = to_json({"at": datetime.now(UTC)}).ljust(SIZE)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.nc.jetstream(timeout=PATIENCE).publish(subjects.HEALTH_CHECK, body, stream=subjects.HEALTH)
        except (NatsError, OSError, TimeoutError) as error:
            self._since = self._since or datetime.now(UTC)
            return LogHealth(status="unavailable", detail=str(error) or repr(error), since=self._since)
        self._since = None
        return LogHealth(status="ok")


#: The fields of a manager's status that `/healthz` shows: no texts of errors.
PUBLIC = {"name", "works", "last_run", "last_success", "failing_since", "running", "backing_off"}


def public_status(status: Status) -> dict[str, Json]:
    return operator_status(status).model_dump(mode="json", include=PUBLIC)


@dataclass(frozen=True)
class StatusMessage:
    """Makes the status that this process publishes every second. `holder`: who has the lease of the managers."""

    process: Process
    position: Callable[[], int]
    holder: Callable[[], Process | None]
    managers: Callable[[], Sequence[Status]]
    newer: Newer
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self, ends: bool) -> bytes:
        holder = self.holder()
        status = RoleStatus(
            role="handlers",
            process=RoleProcess.model_validate(self.process, from_attributes=True),
            began=self.began,
            version=VERSION,
            ends=ends,
            position=self.position(),
            last_error=self.newer.error,
            failing_since=self.newer.since,
            holder=RoleProcess.model_validate(holder, from_attributes=True) if holder is not None else None,
            managers=tuple(map(operator_status, self.managers())),
        )
        return status.model_dump_json().encode()


def operator_status(status: Status) -> ManagerStatus:
    """The status of a manager for operators."""
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
