"""FastStream on our own connection, with retries where FastStream has none.

FastStream's reader gives up if JetStream has no leader when it starts. If its consumer is deleted, it requests messages
for ever, without a pause. Here the reader waits for JetStream, and creates a deleted consumer again.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter
from dataclasses import replace
from types import TracebackType
from typing import Any

from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError, ServerError

from runtime import logs
from runtime.bus.api import prefix
from runtime.tasks.patience import patiently
from runtime.tasks.tasks import happens

log = logs.get(__name__)

#: Seconds before the next request for messages, after JetStream refused one.
PAUSE = 0.2
#: Seconds for the server to send what it has, or that it has nothing.
AT_HAND_SECONDS = 0.5
#: Seconds to wait until more messages than one are done, so that several are requested together.
SOON = 0.02
#: JetStream's error code for a setting of a consumer that cannot be changed, such as the deliver policy.
NOT_CHANGED = 10012


async def ensure(js: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    """Create the consumer, or update its settings to those of this version.

    A consumer that cannot be updated is deleted and created. Then all messages are delivered again, which the functions
    of queues must tolerate.
    """
    assert config.durable_name is not None
    try:
        await js.add_consumer(stream, replace(config))
    except ServerError as error:
        if error.err_code != NOT_CHANGED:
            raise
        log.warning("consumer cannot be updated; created again", consumer=config.name, error=error.description)
        with contextlib.suppress(NotFoundError):
            await js.delete_consumer(stream, config.durable_name)
        await js.add_consumer(stream, replace(config))


class InWork:
    """The messages that were delivered, and are neither acknowledged nor returned (nak). `most`: how many of one queue
    there may be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._since: dict[str, tuple[float, Msg]] = {}
        self._queues: dict[str, str] = {}
        """The queue of each message."""
        self._count: Counter[str] = Counter()
        self._ended = asyncio.Event()

    def begin(self, queue: str, messages: list[Msg]) -> None:
        now = time.monotonic()
        for message in messages:
            self._since[message.reply] = now, message
            if message.reply not in self._queues:
                self._queues[message.reply] = queue
                self._count[queue] += 1

    def end(self, message: Msg) -> None:
        self._since.pop(message.reply, None)
        queue = self._queues.pop(message.reply, None)
        if queue is not None:
            self._count[queue] -= 1
            self._ended.set()

    async def room(self, queue: str) -> int:
        """Wait until the queue may get messages. Returns how many, at least one.

        It waits a moment longer for room for a quarter, because each request costs the same, whatever it brings.
        """
        patience = asyncio.get_running_loop().time() + SOON
        while (free := self.most - self._count[queue]) < max(1, self.most // 4):
            left = patience - asyncio.get_running_loop().time()
            if free and left <= 0:
                break
            self._ended.clear()
            await happens(self._ended, left if free else None)
        return free

    async def keep(self, every: float) -> None:
        """Extend, for ever, the acknowledgement deadline of messages in work, so that no other process gets them."""
        while True:
            await asyncio.sleep(every)
            old = time.monotonic() - every
            for message in [message for since, message in self._since.values() if since <= old]:
                with contextlib.suppress(NatsError, OSError):
                    await message.in_progress()

    async def give_back(self) -> None:
        """Return all messages, so that another process gets them immediately."""
        messages, self._since = self._since, {}
        self._queues.clear()
        self._count.clear()
        for _, message in messages.values():
            with contextlib.suppress(NatsError, OSError):
                await message.nak()


class Pulls:
    """A pull subscription for FastStream, with the methods of nats-py's that FastStream calls."""

    def __init__(
        self,
        js: JetStreamContext,
        stream: str,
        config: ConsumerConfig,
        pulls: JetStreamContext.PullSubscription,
        in_work: InWork,
    ) -> None:
        self._js = js
        self._stream = stream
        self._config = config
        self._pulls = pulls
        self._in_work = in_work

    async def fetch(self, batch: int, timeout: float) -> list[Msg]:
        """The next messages, as many as may be in work; an empty list after a time-out, or after an error, once the
        consumer exists again.

        The first message ends the wait, and what the server has besides comes with it. nats-py asks for all at once;
        now and then it was seen to return the first message only when a second one came.
        """
        name = self._config.durable_name or ""
        room = min(batch, await self._in_work.room(name))
        try:
            messages = await self._pulls.fetch(1, timeout=timeout)
            messages += await self._at_hand(room - 1)
        except TimeoutError:  # nats-py raises its own, and Python's
            return []
        except NatsError as error:
            log.debug("no messages can be read", consumer=self._config.name, error=repr(error))
            await asyncio.sleep(PAUSE)
            await ensure_patiently(self._js, self._stream, self._config)
            return []
        self._in_work.begin(name, messages)
        return messages

    async def _at_hand(self, most: int) -> list[Msg]:
        """Further messages that the server has now."""
        found: list[Msg] = []
        pulls, ask = self._pulls, json.dumps({"batch": most, "no_wait": True}).encode()
        with contextlib.suppress(TimeoutError, NatsError, OSError):
            if most:
                await pulls._nc.publish(pulls._nms, ask, pulls._deliver)
            while len(found) < most:
                msg = await pulls._sub.next_msg(AT_HAND_SECONDS)
                if JetStreamContext.is_status_msg(msg) is not None:
                    break
                found.append(msg)
        return found

    async def unsubscribe(self) -> None:
        with contextlib.suppress(NatsError, OSError):  # the server may have stopped already
            await self._pulls.unsubscribe()


async def ensure_patiently(js: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    """As `ensure`; tries again, without a limit, while JetStream is unavailable."""
    await patiently(f"the queue {config.name}", lambda: ensure(js, stream, config))


class Context(JetStreamContext):
    """The JetStream context that FastStream gets."""

    def __init__(self, nc: Client, in_work: InWork) -> None:
        super().__init__(nc, prefix=prefix(nc))
        self._in_work = in_work

    async def pull_subscribe(self, *_: Any, **options: Any) -> Any:
        stream, config = options["stream"], options["config"]
        await ensure_patiently(self, stream, config)
        pulls = await self.pull_subscribe_bind(consumer=config.durable_name, stream=stream)
        return Pulls(self, stream, config, pulls, self._in_work)


def without_traceback(record: logging.LogRecord) -> bool:
    """Make one line of a message that comes again: it cannot be acknowledged or given back while the bus is away, or
    its work is cancelled because the process stops.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (NatsError, OSError, asyncio.CancelledError)):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg = f"a message is not acknowledged, and comes again: {error!r}"
        record.exc_info = None
    return True


class Broker(NatsBroker):
    """A broker on our own connection, which its owner closes. `grace`: seconds for messages in work when it stops."""

    def __init__(self, nc: Client, in_work: InWork, *, grace: float) -> None:
        # The logger "faststream" would write a line for each message. `apply_types` (injected parameters) costs two
        # changes of threads for each message.
        logger = logging.getLogger("handlers.faststream")
        logger.addFilter(without_traceback)
        super().__init__(logger=logger, graceful_timeout=grace, apply_types=False)
        self._nc = nc
        self._in_work = in_work

    async def _connect(self) -> Client:
        self.config.connect(self._nc)
        self.config.connection_state.connect(self._nc, Context(self._nc, self._in_work))
        return self._nc

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        self._connection = None  # otherwise it would be drained, which fails while the server is unavailable
        await super().stop(exc_type, exc_val, exc_tb)
