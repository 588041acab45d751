"""The newest answer of `/healthz`, and since when each part does not work."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Required

from typing_extensions import TypedDict

from domain.contract import Json

#: Seconds for which one answer is used for all callers.
FRESH = 1.0

#: How long no process may run the managers: the time in which their lease moves to another process.
IDLE = timedelta(seconds=15)

#: The parts that the platform needs: handlers decide; the log stores; the log and the read models can be read; a
#: process updates the read models.
PARTS = ("commands", "log", "nats", "postgres", "projections")


class Part(TypedDict, total=False):
    """The state of one part. `position`: up to where it is; `building`: the same of read models of a new version."""

    status: Required[Literal["ok", "unavailable", "unknown"]]
    detail: str
    since: datetime
    position: int
    building: dict[str, int]


#: A manager as handlers report it.
Manager = dict[str, Json]


class Standstill:
    """How long a position has not moved although there are later events."""

    def __init__(self) -> None:
        self._position = -1
        self._since = 0.0

    def seconds(self, position: int, behind: bool, now: float) -> float:
        if position != self._position or not behind:
            self._position, self._since = position, now
        return now - self._since


class HealthMemory:
    """One per gateway, so that frequent calls cost little."""

    def __init__(self) -> None:
        self.rows = Standstill()
        self._asking = asyncio.Lock()
        self._at = float("-inf")
        self._body: dict[str, Any] = {}
        self._since: dict[str, datetime] = {}
        self._idle: dict[str, datetime] = {}

    def dated(self, managers: list[Manager]) -> list[Mapping[str, object]]:
        """The managers. One that no process has run for too long counts as failing since then."""
        idle = {str(each.get("name")) for each in managers if each.get("works") is False}
        now = datetime.now(UTC)
        self._idle = {name: self._idle.get(name, now) for name in idle}
        too_long = {name for name, since in self._idle.items() if now - since > IDLE}
        return [
            {**each, "failing_since": each.get("failing_since") or self._idle[str(each["name"])]}
            if str(each.get("name")) in too_long
            else each
            for each in managers
        ]

    async def body(self, look: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """The answer, at most FRESH seconds old; `look` makes a new one."""
        async with self._asking:
            if time.monotonic() - self._at > FRESH:
                self._body = self._dated(await look())
                self._at = time.monotonic()
            return self._body

    def _dated(self, body: dict[str, Any]) -> dict[str, Any]:
        for name in PARTS:
            if body[name]["status"] == "ok":
                self._since.pop(name, None)
            else:
                body[name]["since"] = self._since.setdefault(name, datetime.now(UTC))
        return body
