"""Keeps the past in the role projections, beside the runner of the present.

It works only while the runner of the present in the same process is the one that keeps the read models; so of several
processes, one keeps both. Whatever fails here is logged, shown in the status and tried again: the present goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from nats.aio.client import Client

from domain.contract import PastStatus
from eventstore.log.macs import EventKeys
from projections import behind, database, upgrade
from projections.model import Standing
from projections.past.models import PAST
from projections.past.secrets import NoSecrets
from projections.past.turns import Turns
from projections.position import Position
from projections.runner import Runner
from runtime import logs
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import end
from runtime.text.masking import masked

log = logs.get(__name__)

RETRY = Backoff(first=1.0, last=60.0)
#: Messages from which on a new version of the past is built in a process of its own: its batches are large.
REPLACED = 2000

Build = Callable[[], Awaitable[None]]
"""Builds the past up to the end of the log, in a process of its own."""


class Keeper:
    """`present`: the runner of the read models of the present. `build`: None if everything happens here."""

    def __init__(
        self, nc: Client, dsn: str, present: Runner, event_keys: EventKeys | None = None, build: Build | None = None
    ) -> None:
        self._dsn = dsn
        self._present = present
        self._build = build
        self._error: str | None = None
        self._since: datetime | None = None
        self.position = Position()
        turns = Turns(nc, present.position, present.activity, event_keys)
        self._runner = Runner(
            *(nc, dsn, NoSecrets(), self.position, PAST.models, event_keys),
            parks=False,
            schema=PAST.schema,
            source=turns.messages,
        )

    async def run(self) -> None:
        """Keep the past for ever. It raises nothing."""
        pauses = RETRY.pauses()
        while True:
            await self._present.activity.following.wait()
            started = self.position.value
            try:
                await self._while_the_present_is_kept()
            except Exception as error:
                if self.position.value > started:
                    pauses = RETRY.pauses()
                self._note(error)
            await asyncio.sleep(next(pauses))

    def status(self) -> PastStatus:
        """The state of the past, for operators."""
        error = self._error or self._runner.last_error
        since = self._since or self._runner.failing_since
        return PastStatus(
            position=self.position.value,
            last_error=masked(error) if error is not None else None,
            failing_since=since,
        )

    async def _while_the_present_is_kept(self) -> None:
        ended = asyncio.create_task(self._present.activity.ended.wait())
        work = asyncio.create_task(self._keep())
        try:
            await asyncio.wait({ended, work}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            await end([ended, work])

    async def _keep(self) -> None:
        if self._build is not None and await self._is_far_behind():
            log.info("the past is far behind; another process builds it")
            await self._build()
        self._error, self._since = None, None
        await self._runner.run()

    async def _is_far_behind(self) -> bool:
        async with await database.connect(self._dsn, "past", PAST.schema) as conn:
            found = await upgrade.where(conn, PAST.models, PAST.schema)
            if found is Standing.NEWER:
                return False  # the runner says so
            after = await database.checkpoint(conn) if found is Standing.SAME else 0
        most = REPLACED if found is Standing.OLDER else behind.WORTH_IT
        return self._present.position.value - after >= most

    def _note(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}".strip()
        if text != self._error:
            log.warning("the past is not kept; the present goes on", error=text, exc_info=error)
        self._error, self._since = text, self._since or datetime.now(UTC)
