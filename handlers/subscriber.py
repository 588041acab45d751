"""The queue of reports, read by FastStream: on the connection of the handlers, and patient with JetStream.

FastStream's own reader gives up when JetStream has no leader at its start, and asks again without a pause, for ever,
when its consumer is gone. Here both are waited for, and a consumer that somebody deleted is made anew.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy as Acks
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError, ServerError

from runtime import logs, subjects
from runtime.patience import patiently

log = logs.get(__name__)

CONSUMER = "handlers-reports"
QUEUE = "the queue of reports"
#: Reports that are asked for at a time.
BATCH = 16
#: Seconds for which JetStream may have none.
WAIT = 5.0
#: Seconds before JetStream is asked again when it refused to hand out messages.
PAUSE = 0.2
#: What JetStream answers to a change that it makes of no consumer (another deliver policy, say).
NOT_CHANGED = 10012


def consumer() -> ConsumerConfig:
    """What remembers which reports were taken in."""
    return ConsumerConfig(
        name=CONSUMER,
        durable_name=CONSUMER,
        filter_subject=subjects.REPORTS_OF_ALL,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=Acks.EXPLICIT,
        ack_wait=5,
        max_ack_pending=256,
    )


async def ensure(js: JetStreamContext) -> None:
    """Make the consumer, or give it the settings of this version.

    One that cannot be changed is made anew. All reports are read again then, which changes nothing: each has a number.
    """
    try:
        await js.add_consumer(subjects.REPORTS, consumer())
    except ServerError as error:
        if error.err_code != NOT_CHANGED:
            raise
        log.warning("the consumer of reports cannot be changed; it is made anew", error=error.description)
        with contextlib.suppress(NotFoundError):
            await js.delete_consumer(subjects.REPORTS, CONSUMER)
        await js.add_consumer(subjects.REPORTS, consumer())


class Queue:
    """What FastStream takes for a pull subscription of nats-py."""

    def __init__(self, js: JetStreamContext, pulls: JetStreamContext.PullSubscription) -> None:
        self._js = js
        self._pulls = pulls

    async def fetch(self, batch: int, timeout: float) -> list[Msg]:
        """The next messages; none where JetStream had no answer, and is there again."""
        try:
            return await self._pulls.fetch(batch, timeout=timeout)
        except TimeoutError:  # nats-py raises its own, and Python's
            return []
        except NatsError as error:
            log.debug("no reports can be read", error=repr(error))
            await asyncio.sleep(PAUSE)
            await patiently(QUEUE, lambda: ensure(self._js))
            return []

    async def unsubscribe(self) -> None:
        with contextlib.suppress(NatsError, OSError):  # the server may be gone before us
            await self._pulls.unsubscribe()


class Context(JetStreamContext):
    """JetStream as FastStream sees it."""

    async def pull_subscribe(self, *_: Any, **__: Any) -> Any:
        await patiently(QUEUE, lambda: ensure(self))
        return Queue(self, await self.pull_subscribe_bind(consumer=CONSUMER, stream=subjects.REPORTS))


class Broker(NatsBroker):
    """On a connection of ours, which is closed by whoever opened it."""

    def __init__(self, nc: Client) -> None:
        # A logger of its own: "faststream" writes a line a message, in its own form.
        super().__init__(logger=logging.getLogger("handlers.faststream"))
        self._nc = nc

    async def _connect(self) -> Client:
        self.config.connect(self._nc)
        self.config.connection_state.connect(self._nc, Context(self._nc))
        return self._nc

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        self._connection = None  # or it would be drained, which fails while the server is away
        await super().stop(exc_type, exc_val, exc_tb)


def broker_of(nc: Client, receive: Callable[[bytes, NatsMessage], Awaitable[None]]) -> Broker:
    """The broker with its one subscriber: reports (stored, acknowledged)."""
    broker = Broker(nc)
    broker.subscriber(
        subjects.REPORTS_OF_ALL,
        pull_sub=PullSub(batch_size=BATCH, timeout=WAIT),
        stream=JStream(subjects.REPORTS, declare=False),
        durable=CONSUMER,
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=raw_body,
        no_reply=True,  # or it would publish to whatever subject a header `reply_to` names, as the handlers
    )(receive)
    return broker


async def raw_body(msg: NatsMessage) -> bytes:
    """The body as it came: what is in it is judged where failure has a place to go."""
    return msg.body
