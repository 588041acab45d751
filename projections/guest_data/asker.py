"""Sends questions to the projections over the bus: the data of a guest, a guest is ready, which copies are invalid."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from nats.aio.client import Client
from pydantic import BaseModel
from pydantic_core import to_json

from domain.contract.guest_data import (
    ASK_SECONDS,
    READY_SECONDS,
    UNKNOWN,
    WITHHELD,
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
from runtime.bus.api import guests_of
from runtime.bus.replies import InvalidReply
from runtime.bus.requests import Patience, Unanswered

M = TypeVar("M", bound=BaseModel)

#: Questions on the bus at a time; the others wait for their turn.
AT_A_TIME = 64


class UnknownSecret(Exception):
    """The projections do not know the secret."""


class Withheld(Exception):
    """The secret is valid, but nobody may use it now; the text says why."""


class CallRefused(Exception):
    """The guest's call is refused; the text says why."""


class NoAnswer(Exception):
    """The projections do not answer now; the text says why."""


class Asker:
    """Questions over one connection."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._places = asyncio.Semaphore(AT_A_TIME)
        #: for the status of this process
        self.last_success: datetime | None = None
        self.last_error: str | None = None
        self.failing_since: datetime | None = None

    async def seed(self, secret: str) -> GuestSeed:
        """The data for the guest of this secret. Raises UnknownSecret, Withheld, NoAnswer."""
        try:
            subject = self._subject(subjects.GUEST_SEED, subjects.guest_seed)
            return await self._ask(GuestSeed, subject, SeedQuestion(secret=secret), ASK_SECONDS)
        except CallRefused as error:  # by projections of another version
            raise NoAnswer(str(error)) from error

    async def ready(self, secret: str, call: GuestCall) -> None:
        """Forward that the guest is ready. Raises UnknownSecret, Withheld, CallRefused, NoAnswer."""
        subject = self._subject(subjects.GUEST_READY, subjects.guest_ready)
        await self._ask(Nothing, subject, GuestReady(secret=secret, call=call), READY_SECONDS)

    async def invalid(self, digests: tuple[str, ...]) -> tuple[str, ...]:
        """The digests of secrets that are no longer valid. Raises NoAnswer."""
        try:
            subject = self._subject(subjects.GUEST_SEEDS_HELD, subjects.guest_seeds_held)
            answer = await self._ask(SeedsUnknown, subject, SeedsHeld(digests=digests), ASK_SECONDS)
        except (UnknownSecret, Withheld, CallRefused) as error:
            raise NoAnswer(str(error)) from error
        return answer.digests

    def _subject(self, of_any: str, of_node: Callable[[str], str]) -> str:
        """The subject that the credential allows now: a renewed one may be the first that is for one node only."""
        node = guests_of(self._nc)
        return of_any if node is None else of_node(node)

    async def _ask(self, kind: type[M], subject: str, question: BaseModel, seconds: float) -> M:
        try:
            answer = await self._request(kind, subject, question, seconds)
        except NoAnswer as error:
            self.last_error = str(error)
            self.failing_since = self.failing_since or datetime.now(UTC)
            raise
        except (UnknownSecret, Withheld, CallRefused):
            self._note_success()
            raise
        self._note_success()
        return answer

    def _note_success(self) -> None:
        self.last_success, self.failing_since = datetime.now(UTC), None

    async def _request(self, kind: type[M], subject: str, question: BaseModel, seconds: float) -> M:
        if not self._nc.is_connected:
            raise NoAnswer("there is no connection to the bus")
        body = to_json(question.model_dump(mode="json"))
        try:
            async with asyncio.timeout(seconds), self._places:
                return await requests.request(self._nc, subject, body, Patience(seconds), kind.model_validate)
        except (Unanswered, TimeoutError) as error:
            raise NoAnswer(f"the projections do not answer: {type(error).__name__} {error}") from error
        except InvalidReply as error:
            raise NoAnswer(f"the answer of the projections cannot be read: {error}") from error
        except requests.Refused as refused:
            if refused.refusal.code == UNKNOWN:
                raise UnknownSecret(str(refused)) from refused
            if refused.refusal.code == WITHHELD:
                raise Withheld(str(refused)) from refused
            raise (NoAnswer if refused.refusal.status >= 500 else CallRefused)(str(refused)) from refused
