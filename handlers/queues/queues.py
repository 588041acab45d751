"""Durable work queues: each message of a stream is delivered to one function, until it is processed or parked.

A queue is one function of a message and its subject. The type of its first parameter is the type of the messages:

    @queues.of(REPORTS, subjects.REPORTS_OF_ALL)
    async def on_report(report: NodeReport, subject: str) -> None: ...

- The function returns: the message is acknowledged.
- The message is not of that type, or the function raises PoisonMessage: it is parked.
- The function raises Unavailable or Conflict: it is called again after a pause, until it raises neither.
- The function raises NewerVersion: the message is delivered again, until handlers of that version get it.
- It raises anything else, or takes longer than LONGEST: the message is delivered again after a pause that grows. It is
  parked after as many tries as the settings allow, with the error of the last one.
- The process stops or is killed: the message is delivered again, to any process.

The server counts deliveries, also those of returned messages. So a message that waits for the log is not returned, but
kept in this process. The count of tries thus has only failures and processes that ended, of all processes together.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

from faststream import AckPolicy, BaseMiddleware, ContextRepo
from faststream.exceptions import NackMessage
from faststream.nats import JStream, NatsMessage, NatsRouter, PullSub
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy as Acks, ConsumerConfig, DeliverPolicy
from pydantic import TypeAdapter

from eventstore.log.received import own
from eventstore.log.store import Conflict, Unavailable
from eventstore.parking.parking import RETRIED_INTO, Parking
from handlers.queues.broker import Broker, InWork
from handlers.world.newer import NewerVersion
from runtime import logs
from runtime.bus.malformed import reason
from runtime.tasks import patience
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import happens

log = logs.get(__name__)

#: Maximum number of messages that are processed at a time. As soon as some are done, others are requested: one that
#: takes long delays no other. What is appended at the same time is stored in groups.
BATCH = 64
#: Seconds after which a request for messages ends without one. With accounts, that of a process that was killed takes
#: messages until then: the server cannot see from another account that nobody waits for them.
WAIT = 1.0
#: Seconds after which JetStream delivers a message again that was not acknowledged, and whose deadline not extended.
ACK_WAIT = 5.0
#: Maximum number of unacknowledged messages, in all processes together. JetStream delivers no more of them meanwhile.
MOST_WAITING = 4096
#: Maximum number of seconds of one call of the function.
LONGEST = 60.0
#: Seconds before the second try (`first`), and at most before a later one (`last`).
RETRY = Backoff(first=0.5, last=30.0)
#: Seconds before a message is delivered again that only handlers of a newer version can process.
ELSEWHERE = 1.0
#: Seconds for messages in work when the process stops.
GRACE = 3.0
#: Errors that end by themselves, and are not caused by the message.
PASSING = (Unavailable, Conflict)

T = TypeVar("T")
Function = Callable[[T, str], Awaitable[None]]
Check = Callable[[Any, Msg], Awaitable[None]]
"""Checks a decoded message with its bytes and headers, before the function is called. Raises what the function may."""


class PoisonMessage(ValueError):
    """A message that can never be processed: each further try would fail in the same way."""


def consumer_name(source: str) -> str:
    return f"handlers-{source}"


def consumer(source: str, subject: str) -> ConsumerConfig:
    """The configuration of a queue's consumer, which stores which messages are acknowledged."""
    name = consumer_name(source)
    return ConsumerConfig(
        name=name,
        durable_name=name,
        filter_subject=subject,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=Acks.EXPLICIT,
        ack_wait=ACK_WAIT,
        max_ack_pending=MOST_WAITING,
    )


class Queues:
    """The queues of one process, on its own connection. `max_deliver`: number of tries before a message is parked."""

    def __init__(self, nc: Client, parking: Parking, max_deliver: int) -> None:
        self._parking = parking
        self._max_deliver = max_deliver
        self._in_work = InWork(BATCH)
        self._stopping = asyncio.Event()
        self._broker = Broker(nc, self._in_work, grace=GRACE)

    def of(self, source: str, subject: str, check: Check | None = None) -> Callable[[Function[T]], Function[T]]:
        """A decorator: the function processes a queue. `source`: the name of its messages among the parked ones."""
        stream = RETRIED_INTO[source]
        config = consumer(source, subject)

        def policy(msg: Msg | None, /, *, context: ContextRepo) -> Policy:
            return Policy(msg, context=context, queues=self, source=source)

        def register(function: Function[T]) -> Function[T]:
            first = next(iter(inspect.signature(function, eval_str=True).parameters.values()))
            router = NatsRouter(middlewares=[policy])
            router.subscriber(
                subject,
                pull_sub=PullSub(batch_size=BATCH, timeout=WAIT),
                max_workers=BATCH,
                stream=JStream(stream, declare=False),
                durable=config.durable_name,
                config=config,
                ack_policy=AckPolicy.NACK_ON_ERROR,
                decoder=decoder(first.annotation, check),
                no_reply=True,  # otherwise a header `reply_to` makes it publish to any subject
            )(function)
            self._broker.include_router(router)
            return function

        return register

    async def start(self) -> None:
        """Process messages from now on, while `keep` runs."""
        await self._broker.start()

    async def keep(self) -> None:
        """Extend, for ever, the acknowledgement deadline of messages in work."""
        await self._in_work.keep(ACK_WAIT / 3)

    async def stop(self) -> None:
        """Wait up to GRACE seconds for running functions. Other messages are returned, for another process."""
        self._stopping.set()
        await self._broker.stop()
        await self._in_work.give_back()

    async def take(self, source: str, msg: Msg, call: Callable[[], Awaitable[Any]]) -> None:
        """Call the function, and handle its errors. Raises NackMessage if the message has to be delivered again."""

        async def in_time() -> None:
            async with asyncio.timeout(LONGEST):
                await call()

        try:
            await self._retry_while_unavailable(source, msg, in_time)
        except PoisonMessage as error:
            await self._park(source, msg, reason(error.__cause__ or error))
        except PASSING as error:  # the process stops
            raise NackMessage from error
        except NewerVersion as error:
            log.warning(
                "message left to handlers of a newer version", queue=source, subject=msg.subject, error=str(error)
            )
            raise NackMessage(delay=ELSEWHERE) from error
        except Exception as error:
            tries = msg.metadata.num_delivered
            log.exception("message failed", queue=source, subject=msg.subject, tries=tries)
            if tries < self._max_deliver:
                raise NackMessage(delay=RETRY.after(tries)) from error
            await self._park(source, msg, repr(error))

    def done(self, msg: Msg, error: BaseException | None) -> None:
        """FastStream now acknowledges or returns the message. A cancelled one is returned by `stop`."""
        if not isinstance(error, asyncio.CancelledError):
            self._in_work.end(msg)

    async def _retry_while_unavailable(self, source: str, msg: Msg, call: Callable[[], Awaitable[Any]]) -> None:
        """Call again while the log is unavailable, until the process stops."""
        waiting = False
        for pause in patience.RETRY.pauses():
            try:
                await call()
                return
            except PASSING as error:
                if not waiting:
                    log.warning("message waits for the log", queue=source, subject=msg.subject, error=str(error))
                waiting = True
                if await happens(self._stopping, pause):
                    raise

    async def _park(self, source: str, msg: Msg, error: str) -> None:
        """Park a message: store it for operators, or only count it."""
        position = msg.metadata.sequence.stream

        async def put() -> None:
            await self._parking.park(
                source,
                str(position),
                subject=msg.subject,
                position=position,
                error=error,
                headers=own(msg.headers or {}),
                body=msg.data,
            )

        try:
            await self._retry_while_unavailable(source, msg, put)
        except PASSING as unavailable:  # the process stops
            raise NackMessage from unavailable


class Policy(BaseMiddleware[Any, Msg | None]):
    """The FastStream middleware that applies the rules of `Queues` to each message."""

    def __init__(self, msg: Msg | None, /, *, context: ContextRepo, queues: Queues, source: str) -> None:
        super().__init__(msg, context=context)
        self._queues = queues
        self._source = source

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: Any) -> None:
        await self._queues.take(self._source, msg.raw_message, lambda: call_next(msg))

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool:
        if self.msg is not None:
            self._queues.done(self.msg, exc_val)
        return False


def decoder(kind: type[T], check: Check | None = None) -> Callable[[NatsMessage], Awaitable[tuple[T, str]]]:
    """A decoder that makes the function's arguments of a message. It ignores the content type in the headers."""
    adapter = TypeAdapter(kind)

    async def decode(msg: NatsMessage) -> tuple[T, str]:
        try:
            decoded = adapter.validate_json(msg.body)
        except ValueError as error:
            raise PoisonMessage("the body is not of the queue's type") from error
        if check is not None:
            await check(decoded, msg.raw_message)
        return decoded, msg.raw_message.subject

    return decode
