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

#: The source of malformed reports.
STATUS = "role-status"
#: Seconds without a report after which a process counts as silent; seconds for which a silent one is shown.
SILENT, SHOWN = 4.0, 300.0
#: Maximum number of processes in memory: anybody on the bus can send reports under any name.
MOST = 256


@dataclass(frozen=True)
class Report:
    """The newest report of a process. `at`: when it was received; `received`: the same by the monotonic clock."""

    status: RoleStatus
    at: datetime
    received: float

    @property
    def alive(self) -> bool:
        return time.monotonic() - self.received < SILENT


@dataclass
class Roles:
    """The newest reports. A process that reported its end is removed."""

    malformed: Malformed = field(default_factory=Malformed)
    _reports: dict[tuple[str, str], Report] = field(default_factory=dict)

    async def listen(self, nc: Client) -> None:
        """Receive the reports of all processes from now on."""
        await nc.subscribe(subjects.STATUS_OF_ALL, cb=self._receive)

    async def _receive(self, msg: Msg) -> None:
        self.apply(msg.subject, msg.data)

    def apply(self, subject: str, body: bytes) -> None:
        """Process a report. The subject names its process; a malformed one does not count."""
        try:
            status = RoleStatus.model_validate_json(body)
            if subject != subjects.role_status(status.role, status.process.id):
                raise ValueError("it names another process than its subject")
        except ValueError as error:
            self.malformed.note(STATUS, subject, error)
            return
        key = (status.role, status.process.id)
        self._reports.pop(key, None)
        if status.ends:
            return
        self._reports[key] = Report(status, datetime.now(UTC), time.monotonic())
        if len(self._reports) > MOST:
            del self._reports[next(iter(self._reports))]  # the oldest report

    def all(self) -> list[Report]:
        """All reports, by role, host and process number.

        A process that is silent for longer than SHOWN is left out if another process of its role is alive.
        """
        alive = {each.status.role for each in self._reports.values() if each.alive}
        shown = [
            each
            for each in self._reports.values()
            if each.status.role not in alive or time.monotonic() - each.received < SHOWN
        ]
        roles = get_args(RoleName)
        return sorted(
            shown, key=lambda each: (roles.index(each.status.role), each.status.process.host, each.status.process.pid)
        )
