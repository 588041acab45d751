"""The last use of each token, to the minute: one message per token, not an event for each use."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from runtime import logs, subjects
from runtime.bus import ordered, reading
from runtime.bus.malformed import Malformed
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: Seconds between two messages about one token.
PRECISION = 60
#: Seconds between two writes of what was noted.
WRITES = 1.0
#: The source of malformed messages.
SOURCE = "token-uses"


class TokenUse(BaseModel):
    """When a token was last used, to the minute."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    at: AwareDatetime


class Uses:
    """The last uses that all gateways saw. `clock`: seconds since 1970."""

    def __init__(self, nc: Client, malformed: Malformed, clock: Callable[[], float] = time.time) -> None:
        self._nc = nc
        self._malformed = malformed
        self._clock = clock
        self._minutes: dict[str, int] = {}
        self._new: dict[str, int] = {}

    def note(self, token: str) -> None:
        """Note that a token is used now. Written later, if no gateway has written it in this minute."""
        minute = int(self._clock()) // PRECISION
        if self._minutes.get(token, 0) < minute:
            self._minutes[token] = self._new[token] = minute

    def of(self, token: str) -> datetime | None:
        """The minute in which a token was last used, as far as it is known."""
        minute = self._minutes.get(token)
        return datetime.fromtimestamp(minute * PRECISION, UTC) if minute is not None else None

    async def write(self) -> None:
        """Write what was noted since the last call."""
        new, self._new = self._new, {}
        for token, minute in new.items():
            use = TokenUse(at=datetime.fromtimestamp(minute * PRECISION, UTC))
            try:
                await self._nc.publish(subjects.token_use(token), use.model_dump_json().encode())
            except (NatsError, OSError) as error:
                log.warning("the last use of a token is not stored", token=token, error=repr(error))

    async def run(self) -> None:
        """Follow the stream, and write every second what was noted, for ever."""
        writing = asyncio.create_task(self._write())
        try:
            await self._follow()
        finally:
            await end([writing])

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(WRITES)
            await self.write()

    async def _follow(self) -> None:
        while True:
            try:
                uses = reading.follow(self._nc, subjects.TOKEN_USES, 0, [subjects.TOKEN_USES_OF_ALL], read)
                async for batch in uses:
                    for subject, body in batch:
                        self.apply(subject, body)
            except ordered.OtherStream as error:
                log.warning("the stream of last uses was replaced", error=str(error))

    def apply(self, subject: str, body: bytes) -> None:
        """Process a message. One of the future counts as one of now, because anybody on the bus may write it."""
        try:
            use = TokenUse.model_validate_json(body)
            token = subject.split(".")[2]
            latest = datetime.fromtimestamp(self._clock(), UTC) + timedelta(seconds=PRECISION)
            minute = int(min(use.at, latest).timestamp()) // PRECISION
        except (ValidationError, ValueError, IndexError, OverflowError) as error:
            self._malformed.note(SOURCE, subject, error)
            return
        self._minutes[token] = max(minute, self._minutes.get(token, 0))


def read(msg: Msg, _position: int, _nanoseconds: int) -> tuple[str, bytes]:
    return msg.subject, msg.data
