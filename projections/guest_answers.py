"""What each guest gets, computed from the read models and sent to guest-data over the bus.

Guest-data asks with the secret of a guest's URL; only the secret says whose seed it is. Guest-data may run on any node,
so it is not trusted: that a guest is ready is checked again here, and the command for handlers is made here.

- A guest may be faster than the read models: a secret that is not known yet is looked for again once they are as new as
  the log was when it was asked for. Where that takes too long the answer is to try again, not that there is nothing.
- The same instance id for the life of the VM's disk, at every boot: otherwise a guest would believe that it is
  a new machine and make new SSH host keys. On a new disk it is one.
- Read models come first: a few questions use the database at a time, a bounded number waits, and more are refused.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import yaml
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import BaseModel

from domain.contract import Caller, CommandRequest
from domain.contract.guest_data import (
    ASK_SECONDS,
    BUSY,
    READY_SECONDS,
    REFUSED,
    UNAVAILABLE,
    UNKNOWN,
    GuestReady,
    GuestSeed,
    SeedQuestion,
    SeedsHeld,
    SeedsUnknown,
)
from eventstore.log.store import EventStore, Unavailable
from eventstore.vault.vault import Erased, VaultUnavailable, WrongMasterKey
from projections import seeds, ssh
from projections.database import Away, Pool
from projections.model import Secrets
from projections.position import Position
from projections.seeds import Seed
from runtime import logs, subjects
from runtime.bus import replies, requests
from runtime.bus.replies import Nonsense, Refusal
from runtime.bus.requests import Patience, Unanswered
from runtime.bus.responder import Answer, Responder
from runtime.tasks import tasks

log = logs.get(__name__)

#: One of all projections answers a question.
QUEUE = "projections"
#: Seconds that an unknown secret waits for the read models.
PATIENCE = 3.0
#: Seconds until it is looked again although the read models did not get there, as far as this process knows.
LOOK_SECONDS = 0.5
#: Seconds for handlers to answer.
COMMAND_SECONDS = 5.0
#: Questions that use the database at a time, and those that are worked on or wait in all.
AT_A_TIME, MOST = 4, 256

TOO_MANY = Refusal(code=BUSY, status=503, detail="too many guests ask at a time")

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class Refused(Exception):
    """The answer is a refusal. Its text names no secret."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(code=code, status=status, detail=detail[: replies.MOST_DETAIL])


class GuestAnswers:
    """Answers what guest-data asks. Keep `run` going."""

    def __init__(self, nc: Client, pool: Pool, secrets: Secrets, position: Position) -> None:
        self._nc = nc
        self._pool = pool
        self._secrets = secrets
        self._position = position
        self._responder = Responder(nc, refusal)
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._working: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Answer until cancelled."""
        for subject, kind, answer, seconds in (
            (subjects.GUEST_SEED, SeedQuestion, self.seed, ASK_SECONDS),
            (subjects.GUEST_READY, GuestReady, self.ready, READY_SECONDS),
            (subjects.GUEST_SEEDS_HELD, SeedsHeld, self.held, ASK_SECONDS),
        ):
            await self._nc.subscribe(subject, queue=QUEUE, cb=self._taker(kind, answer, seconds))  # type: ignore[arg-type]
        log.info("guests are answered")
        try:
            await asyncio.Event().wait()
        finally:
            await tasks.end(self._working)

    def _taker(
        self, kind: type[M], answer: Callable[[M], Awaitable[BaseModel | None]], seconds: float
    ) -> Callable[[Msg], Awaitable[None]]:
        """What takes the questions of one kind, and answers each within so many seconds."""

        async def work(msg: Msg) -> Answer:
            async with asyncio.timeout(seconds):  # after that nobody waits for it
                said = await answer(kind.model_validate_json(msg.data))
            return Answer(replies.accepted(said.model_dump(mode="json") if said is not None else {}))

        async def take(msg: Msg) -> None:
            if not self._responder.accepts(msg):
                return
            if len(self._working) >= MOST:
                await self._responder.answer(msg, replies.refused(TOO_MANY))
                return
            task = asyncio.create_task(self._responder.carry_out(msg, work))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

        return take

    async def seed(self, question: SeedQuestion) -> GuestSeed:
        """What the guest of this secret is told. Raises Refused."""
        seed = await self.known(question.secret)
        user_data = b""
        if seed.user_data is not None:
            try:
                user_data = await self._secrets.unsealed(seed.user_data)
            except Erased as error:
                raise Refused(404, UNKNOWN, "its key was destroyed") from error
        told = GuestSeed(
            project=seed.project,
            vm=seed.vm,
            meta_data=meta_data(seed),
            user_data=user_data,
        )
        if len(told.meta_data) + len(user_data) * 4 // 3 > self._nc.max_payload - 4096:
            log.error("what a guest is told does not fit into a message: give it fewer SSH keys", vm=seed.vm)
            raise Refused(503, UNAVAILABLE, "what the guest is told does not fit into a message")
        return told

    async def known(self, secret: str) -> Seed:
        """The seed that a secret opens. Raises Refused: 404 where there is none; 503 while that cannot be known."""
        found = await self._for_certain(lambda: seeds.find(self._pool, secret), lambda seed: seed is not None)
        if found is None:
            raise Refused(404, UNKNOWN, "unknown secret")
        return found

    async def _for_certain(self, ask: Callable[[], Awaitable[tuple[T, int]]], is_enough: Callable[[T], bool]) -> T:
        """The first answer that is enough, or is as new as the log was when this began. Raises Refused, 503.

        Its own position counts, not how far the runner of this process is: that one may stand by for another.
        """
        clock, end = asyncio.get_running_loop().time, None
        deadline, there = clock() + PATIENCE, False
        while True:
            async with self._places:
                found, position = await ask()
            if is_enough(found):
                return found
            if end is None:
                end = await EventStore(self._nc).last_position()
            if position >= end:
                return found
            left = deadline - clock()
            if left <= 0:
                raise Refused(503, UNAVAILABLE, f"unknown, and the read models stand at {position} of {end}")
            if there:  # this process believes so, and the tables do not
                await asyncio.sleep(min(left, LOOK_SECONDS))
            else:
                there = await self._position.reach(end, min(left, LOOK_SECONDS))

    async def ready(self, said: GuestReady) -> None:
        """Tell handlers that a guest is ready. Raises Refused."""
        seed = await self.known(said.secret)
        if said.call.instance_id != seed.instance_id:
            raise Refused(400, REFUSED, "the instance id of another machine")
        args = {"vm": seed.vm, "boots": seed.asked, **said.call.model_dump(mode="json", exclude={"instance_id"})}
        asked = CommandRequest(args=args, context=Caller(actor=f"guest:{seed.vm}", request=str(uuid.uuid4())))
        subject = subjects.command(seed.project, "vm", "guest-ready")
        try:
            await requests.asked(self._nc, subject, asked.body(), Patience(COMMAND_SECONDS), lambda said: said)
        except Nonsense as error:
            raise Refused(503, UNAVAILABLE, f"the handlers answered nonsense: {error}") from error
        except Unanswered as error:
            raise Refused(503, UNAVAILABLE, f"{type(error).__name__}: {error}") from error
        except requests.Refused as refused:
            status, code = (503, UNAVAILABLE) if refused.refusal.status >= 500 else (400, REFUSED)
            raise Refused(status, code, str(refused)) from refused

    async def held(self, question: SeedsHeld) -> SeedsUnknown:
        """The digests that open nothing any more. Raises Refused while the read models cannot know."""
        opening = await self._for_certain(lambda: seeds.opening(self._pool, question.digests), lambda _: False)
        return SeedsUnknown(digests=tuple(each for each in question.digests if each not in opening))


def refusal(error: Exception) -> Refusal | None:
    """What guest-data is told of an error; None for a fault of ours."""
    if isinstance(error, Refused):
        return error.refusal
    if isinstance(error, Away | Unavailable | VaultUnavailable | WrongMasterKey | NatsError | OSError | TimeoutError):
        return Refused(503, UNAVAILABLE, f"{type(error).__name__}: {error}").refusal
    return None


def meta_data(seed: Seed) -> str:
    """YAML: who the guest is, and who may log in."""
    return as_yaml(
        {
            "instance-id": seed.instance_id,
            "local-hostname": seed.name,
            "public-keys": [ssh.fit(key) for key in seed.ssh_keys],
        }
    )


def as_yaml(document: dict[str, Any]) -> str:
    """YAML in ASCII, by the library that cloud-init reads it with. (JSON is no YAML: its escapes are other ones.)"""
    return yaml.safe_dump(document, sort_keys=False, width=float("inf"))
