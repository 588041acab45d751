"""The state of the platform's processes, kept in memory from the reports that they send every second."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import get_args

from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.contract import RoleName, RoleStatus
from runtime import subjects
from runtime.bus.malformed import Malformed

#: How these messages are called among what made no sense.
STATUS = "role-status"
#: Seconds without a report after which a process counts as silent; seconds for which a silent one is shown.
SILENT, SHOWN = 4.0, 300.0
#: Processes that are remembered: anybody on the bus can send words under any name.
MOST = 256


@dataclass(frozen=True)
class Heard:
    """The newest word of a process, when it came, and when by the monotonic clock."""

    said: RoleStatus
    at: datetime
    heard: float

    @property
    def alive(self) -> bool:
        return time.monotonic() - self.heard < SILENT


@dataclass
class Roles:
    """The newest reports. A process that reported its end is forgotten."""

    malformed: Malformed = field(default_factory=Malformed)
    _heard: dict[tuple[str, str], Heard] = field(default_factory=dict)

    async def listen(self, nc: Client) -> None:
        """Receive the reports of all processes from now on."""
        await nc.subscribe(subjects.STATUS_OF_ALL, cb=self._hear)

    async def _hear(self, msg: Msg) -> None:
        self.take(msg.subject, msg.data)

    def take(self, subject: str, body: bytes) -> None:
        """Process a report. The subject names its process; a malformed one does not count."""
        try:
            said = RoleStatus.model_validate_json(body)
            if subject != subjects.role_status(said.role, said.process.id):
                raise ValueError("it claims to be of another process")
        except ValueError as error:
            self.malformed.note(STATUS, subject, error)
            return
        key = (said.role, said.process.id)
        self._heard.pop(key, None)
        if said.ends:
            return
        self._heard[key] = Heard(said, datetime.now(UTC), time.monotonic())
        if len(self._heard) > MOST:
            del self._heard[next(iter(self._heard))]  # the one that was silent longest

    def all(self) -> list[Heard]:
        """By role, then by host and process number. A process that is silent for long is not shown beside its like."""
        alive = {each.said.role for each in self._heard.values() if each.alive}
        shown = [
            each
            for each in self._heard.values()
            if each.said.role not in alive or time.monotonic() - each.heard < SHOWN
        ]
        roles = get_args(RoleName)
        return sorted(
            shown, key=lambda each: (roles.index(each.said.role), each.said.process.host, each.said.process.pid)
        )
