"""Asks the projections over the bus: what a guest is told, whether it is ready, which copies count no more."""

import asyncio
from datetime import UTC, datetime
from typing import TypeVar

from nats.aio.client import Client
from pydantic import BaseModel
from pydantic_core import to_json

from domain.contract.guest_data import (
    ASK_SECONDS,
    READY_SECONDS,
    UNKNOWN,
    GuestCall,
    GuestReady,
    GuestSeed,
    Nothing,
    SeedQuestion,
    SeedsHeld,
    SeedsUnknown,
)
from runtime import subjects
from runtime.bus import requests
from runtime.bus.replies import Nonsense
from runtime.bus.requests import Patience, Unanswered

M = TypeVar("M", bound=BaseModel)

#: Questions that are on the bus at a time; the others wait for their turn.
AT_A_TIME = 64


class Unknown(Exception):
    """The projections say that the secret opens nothing."""


class NotBelieved(Exception):
    """The guest's call is refused; the text says why."""


class NoAnswer(Exception):
    """Nobody can say now; the text says why."""


class Asker:
    """Questions over one connection."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._places = asyncio.Semaphore(AT_A_TIME)
        #: for whoever asks how this process is
        self.last_success: datetime | None = None
        self.last_error: str | None = None
        self.failing_since: datetime | None = None

    async def seed(self, secret: str) -> GuestSeed:
        """What the guest of this secret is told. Raises Unknown, NoAnswer."""
        try:
            return await self._ask(GuestSeed, subjects.GUEST_SEED, SeedQuestion(secret=secret), ASK_SECONDS)
        except NotBelieved as error:  # by projections of another version
            raise NoAnswer(str(error)) from error

    async def ready(self, secret: str, call: GuestCall) -> None:
        """Pass on that the guest is ready. Raises Unknown, NotBelieved, NoAnswer."""
        await self._ask(Nothing, subjects.GUEST_READY, GuestReady(secret=secret, call=call), READY_SECONDS)

    async def unknown(self, digests: tuple[str, ...]) -> tuple[str, ...]:
        """Those of these digests of secrets that open nothing any more. Raises NoAnswer."""
        try:
            said = await self._ask(SeedsUnknown, subjects.GUEST_SEEDS_HELD, SeedsHeld(digests=digests), ASK_SECONDS)
        except (Unknown, NotBelieved) as error:
            raise NoAnswer(str(error)) from error
        return said.digests

    async def _ask(self, kind: type[M], subject: str, question: BaseModel, seconds: float) -> M:
        try:
            said = await self._asked(kind, subject, question, seconds)
        except NoAnswer as error:
            self.last_error = str(error)
            self.failing_since = self.failing_since or datetime.now(UTC)
            raise
        except (Unknown, NotBelieved):
            self._works()
            raise
        self._works()
        return said

    def _works(self) -> None:
        self.last_success, self.failing_since = datetime.now(UTC), None

    async def _asked(self, kind: type[M], subject: str, question: BaseModel, seconds: float) -> M:
        if not self._nc.is_connected:
            raise NoAnswer("the bus is away")
        body = to_json(question.model_dump(mode="json"))
        try:
            async with asyncio.timeout(seconds), self._places:
                return await requests.asked(self._nc, subject, body, Patience(seconds), kind.model_validate)
        except (Unanswered, TimeoutError) as error:
            raise NoAnswer(f"the projections do not answer: {type(error).__name__} {error}") from error
        except Nonsense as error:
            raise NoAnswer(f"the projections answer nonsense: {error}") from error
        except requests.Refused as refused:
            if refused.refusal.code == UNKNOWN:
                raise Unknown(str(refused)) from refused
            raise (NoAnswer if refused.refusal.status >= 500 else NotBelieved)(str(refused)) from refused
