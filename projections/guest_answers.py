"""The data of each guest, computed from the read models and sent to guest-data over the bus.

Guest-data sends the secret of a guest's URL; only the secret identifies the seed. Guest-data may run on any node, so it
is not trusted: the message that a guest is ready is checked again here, and the command for handlers is made here.
The guest-data of a host that joined asks on a subject of its node, and only for guests that are placed there.

- A guest may be faster than the read models. An unknown secret, or one of a VM that is off, is looked up again when the
  read models have reached the end that the log had at the request. If that takes too long, the answer is 503 (try
  again), not 404.
- The instance id is the same at every boot on a VM's disk. Otherwise a guest would behave as a new machine and make new
  SSH host keys. On a new disk it is a new machine.
- Read models come first: few questions use the database at a time, a bounded number waits, and others are refused.
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
    WITHHELD,
    GuestReady,
    GuestSeed,
    SeedQuestion,
    SeedsHeld,
    SeedsUnknown,
)
from eventstore.log.store import EventStore, Unavailable
from eventstore.vault.vault import Erased, VaultUnavailable, WrongMasterKey
from projections import seeds, ssh
from projections.database import Pool, ReadModelsUnavailable
from projections.elsewhere import Elsewhere
from projections.model import Secrets
from projections.position import Position
from projections.seeds import Seed
from runtime import logs, subjects
from runtime.bus import replies, requests
from runtime.bus.accounts.table import OF_ANY_NODE
from runtime.bus.refusal_records import RefusalRecords
from runtime.bus.replies import InvalidReply, Refusal
from runtime.bus.requests import Patience, Unanswered
from runtime.bus.responder import Answer, Responder
from runtime.tasks import tasks

log = logs.get(__name__)

#: The queue group: one of all projections processes answers a question.
QUEUE = "projections"
#: Seconds that a secret which is unknown, or of a VM that is off, waits for the read models.
PATIENCE = 3.0
#: Seconds until the next lookup, even if this process does not know that the read models have moved.
LOOK_SECONDS = 0.5
#: Seconds for handlers to answer.
COMMAND_SECONDS = 5.0
#: Questions that use the database at a time, and all questions that are in work or wait.
AT_A_TIME, MOST = 4, 256

TOO_MANY = Refusal(code=BUSY, status=503, detail="too many guests ask at the same time; try again")

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class Refused(Exception):
    """The answer is a refusal. Its text names no secret."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(code=code, status=status, detail=detail[: replies.MOST_DETAIL])


class GuestAnswers:
    """Answers the questions of guest-data while `run` runs."""

    def __init__(
        self,
        nc: Client,
        pool: Pool,
        secrets: Secrets,
        position: Position,
        records: RefusalRecords[Elsewhere] | None = None,
    ) -> None:
        self._nc = nc
        self._pool = pool
        self._secrets = secrets
        self._position = position
        self._records = records
        self._responder = Responder(nc, refusal)
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._working: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Answer until cancelled."""
        for of_any, of_node, kind, answer, seconds in (
            (subjects.GUEST_SEED, subjects.guest_seed, SeedQuestion, self.seed, ASK_SECONDS),
            (subjects.GUEST_READY, subjects.guest_ready, GuestReady, self.ready, READY_SECONDS),
            (subjects.GUEST_SEEDS_HELD, subjects.guest_seeds_held, SeedsHeld, self.held, ASK_SECONDS),
        ):
            callback = self._callback(kind, answer, seconds)  # type: ignore[arg-type]
            await self._nc.subscribe(of_any, queue=QUEUE, cb=callback)
            await self._nc.subscribe(of_node("*"), queue=QUEUE, cb=callback)
        log.info("answering guest-data")
        try:
            await asyncio.Event().wait()
        finally:
            await tasks.end(self._working)

    def _callback(
        self, kind: type[M], answer: Callable[[M, str | None], Awaitable[BaseModel | None]], seconds: float
    ) -> Callable[[Msg], Awaitable[None]]:
        """The callback for one kind of question. It answers within so many seconds."""

        async def work(msg: Msg) -> Answer:
            async with asyncio.timeout(seconds):  # after that, nobody waits for the answer
                found = await answer(kind.model_validate_json(msg.data), asking(msg.subject))
            return Answer(replies.accepted(found.model_dump(mode="json") if found is not None else {}))

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

    async def seed(self, question: SeedQuestion, node: str | None = None) -> GuestSeed:
        """The data for the guest of this secret, and who may have them. Raises Refused."""
        seed = await self.find(question.secret, node, "seed")
        user_data = b""
        if seed.user_data is not None:
            try:
                user_data = await self._secrets.unsealed(seed.user_data)
            except Erased as error:
                raise Refused(404, UNKNOWN, "the key of its user-data was destroyed") from error
        answer = GuestSeed(
            project=seed.project,
            vm=seed.vm,
            mac=seed.access.mac,
            simulated=seed.access.simulated,
            on_disk=seed.access.on_disk,
            finished=seed.access.finished,
            meta_data=meta_data(seed),
            user_data=user_data,
        )
        if len(answer.meta_data) + len(user_data) * 4 // 3 > self._nc.max_payload - 4096:
            log.error("the data of a guest does not fit into a message: give it fewer SSH keys", vm=seed.vm)
            raise Refused(503, UNAVAILABLE, "the data of the guest does not fit into a message")
        return answer

    async def find(self, secret: str, node: str | None = None, verb: str = "") -> Seed:
        """The seed of a secret. `node`: whose guest-data asks; None: it may ask for guests of any node.

        Raises Refused: 404 if there is none, its VM is not on that node, or is off; 503 while the read models are too
        old to know.
        """
        found = await self._when_current(
            lambda: seeds.find(self._pool, secret),
            lambda seed: seed is not None and not seed.access.off and node in (None, seed.access.node),
        )
        if found is not None and node is not None and found.access.node != node:
            log.warning("guest-data asked for a guest of another node", node=node, vm=found.vm, verb=verb)
            if self._records is not None:
                self._records.note(Elsewhere(node, found.vm, verb))
            found = None
        if found is None:
            raise Refused(404, UNKNOWN, "unknown secret")
        if found.access.off:
            raise Refused(404, WITHHELD, "the VM is off")
        return found

    async def _when_current(self, ask: Callable[[], Awaitable[tuple[T, int]]], is_enough: Callable[[T], bool]) -> T:
        """The first result that `is_enough`, or that reflects the end of the log at the start of the call.

        The position of the result counts, not that of this process's runner, which may stand by for another process.
        Raises Refused (503).
        """
        clock, end = asyncio.get_running_loop().time, None
        deadline, reached = clock() + PATIENCE, False
        while True:
            async with self._places:
                found, position = await ask()
            if is_enough(found):
                return found
            if end is None:
                end = await EventStore(self._nc).last_position()
            if position >= end:
                return found
            remaining = deadline - clock()
            if remaining <= 0:
                raise Refused(
                    503, UNAVAILABLE, f"unknown, and the read models are at position {position} of {end}; try again"
                )
            if reached:  # this process knows a later position than these rows had
                await asyncio.sleep(min(remaining, LOOK_SECONDS))
            else:
                reached = await self._position.reach(end, min(remaining, LOOK_SECONDS))

    async def ready(self, message: GuestReady, node: str | None = None) -> None:
        """Send handlers the command `guest-ready`. Raises Refused."""
        seed = await self.find(message.secret, node, "ready")
        if message.call.instance_id != seed.instance_id:
            raise Refused(400, REFUSED, "instance_id: it belongs to another machine")
        args = {
            "vm": seed.vm,
            "boots": seed.secret_boot,
            **message.call.model_dump(mode="json", exclude={"instance_id"}),
        }
        command = CommandRequest(args=args, context=Caller(actor=f"guest:{seed.vm}", request=str(uuid.uuid4())))
        subject = subjects.command(seed.project, "vm", "guest-ready")
        try:
            await requests.request(self._nc, subject, command.body(), Patience(COMMAND_SECONDS), lambda reply: reply)
        except InvalidReply as error:
            raise Refused(503, UNAVAILABLE, f"the reply of the handlers cannot be read: {error}") from error
        except Unanswered as error:
            raise Refused(503, UNAVAILABLE, f"{type(error).__name__}: {error}") from error
        except requests.Refused as refused:
            status, code = (503, UNAVAILABLE) if refused.refusal.status >= 500 else (400, REFUSED)
            raise Refused(status, code, str(refused)) from refused

    async def held(self, question: SeedsHeld, node: str | None = None) -> SeedsUnknown:
        """The digests that are not valid any more, or not on that node.

        Raises Refused while the read models are too old to know.
        """
        digests = question.digests
        valid = await self._when_current(lambda: seeds.valid_digests(self._pool, digests, node), lambda _: False)
        return SeedsUnknown(digests=tuple(each for each in question.digests if each not in valid))


def asking(subject: str) -> str | None:
    """The node whose guest-data asks on a subject; None if it may ask for guests of any node."""
    return None if subject in OF_ANY_NODE else subjects.node_of(subject)


def refusal(error: Exception) -> Refusal | None:
    """The refusal for an error; None if the error is a bug."""
    if isinstance(error, Refused):
        return error.refusal
    if isinstance(
        error,
        ReadModelsUnavailable | Unavailable | VaultUnavailable | WrongMasterKey | NatsError | OSError | TimeoutError,
    ):
        return Refused(503, UNAVAILABLE, f"{type(error).__name__}: {error}").refusal
    return None


def meta_data(seed: Seed) -> str:
    """YAML with the identity of the guest and the SSH keys that may log in."""
    return as_yaml(
        {
            "instance-id": seed.instance_id,
            "local-hostname": seed.name,
            "public-keys": [ssh.single_line(key) for key in seed.ssh_keys],
        }
    )


def as_yaml(document: dict[str, Any]) -> str:
    """YAML in ASCII, by the library that cloud-init uses. (JSON is not valid YAML: its escapes differ.)"""
    return yaml.safe_dump(document, sort_keys=False, width=float("inf"))
