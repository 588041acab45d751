"""FastStream on a connection of ours, patient with JetStream.

FastStream's own reader gives up when JetStream has no leader at its start, and asks again without a pause, for ever,
when its consumer is gone. Here both are waited for, and a consumer that somebody deleted is made anew.
"""

import asyncio
import contextlib
import logging
import time
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
from runtime.tasks.patience import patiently

log = logs.get(__name__)

#: Seconds before JetStream is asked again when it refused to hand out messages.
PAUSE = 0.2
#: What JetStream answers to a change that it makes of no consumer (another deliver policy, say).
NOT_CHANGED = 10012


async def ensure(js: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    """Make the consumer, or give it the settings of this version.

    One that cannot be changed is made anew. All messages are read again then: no function may mind that.
    """
    assert config.durable_name is not None
    try:
        await js.add_consumer(stream, replace(config))
    except ServerError as error:
        if error.err_code != NOT_CHANGED:
            raise
        log.warning("a consumer cannot be changed; it is made anew", consumer=config.name, error=error.description)
        with contextlib.suppress(NotFoundError):
            await js.delete_consumer(stream, config.durable_name)
        await js.add_consumer(stream, replace(config))


class InWork:
    """The messages that were read and are neither done nor given back."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[float, Msg]] = {}

    def begin(self, messages: list[Msg]) -> None:
        now = time.monotonic()
        for message in messages:
            self._since[message.reply] = now, message

    def end(self, message: Msg) -> None:
        self._since.pop(message.reply, None)

    async def keep(self, every: float) -> None:
        """Tell JetStream of those that take long, for ever: no other process is to get them meanwhile."""
        while True:
            await asyncio.sleep(every)
            old = time.monotonic() - every
            for message in [message for since, message in self._since.values() if since <= old]:
                with contextlib.suppress(NatsError, OSError):
                    await message.in_progress()

    async def give_back(self) -> None:
        """Let another process have what is left, without a pause."""
        left, self._since = self._since, {}
        for _, message in left.values():
            with contextlib.suppress(NatsError, OSError):
                await message.nak()


class Pulls:
    """What FastStream takes for a pull subscription of nats-py."""

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
        """The next messages; none where JetStream had no answer, and is there again."""
        try:
            messages = await self._pulls.fetch(batch, timeout=timeout)
        except TimeoutError:  # nats-py raises its own, and Python's
            return []
        except NatsError as error:
            log.debug("no messages can be read", consumer=self._config.name, error=repr(error))
            await asyncio.sleep(PAUSE)
            await made(self._js, self._stream, self._config)
            return []
        self._in_work.begin(messages)
        return messages

    async def unsubscribe(self) -> None:
        with contextlib.suppress(NatsError, OSError):  # the server may be gone before us
            await self._pulls.unsubscribe()


async def made(js: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    """The consumer is there, however long that takes."""
    await patiently(f"the queue {config.name}", lambda: ensure(js, stream, config))


class Context(JetStreamContext):
    """JetStream as FastStream sees it."""

    def __init__(self, nc: Client, in_work: InWork) -> None:
        super().__init__(nc)
        self._in_work = in_work

    async def pull_subscribe(self, *_: Any, **options: Any) -> Any:
        stream, config = options["stream"], options["config"]
        await made(self, stream, config)
        pulls = await self.pull_subscribe_bind(consumer=config.durable_name, stream=stream)
        return Pulls(self, stream, config, pulls, self._in_work)


def without_traceback(record: logging.LogRecord) -> bool:
    """Make one line of a message that cannot be acknowledged or given back while the bus is away. It comes again."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (NatsError, OSError)):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg = f"a message is not acknowledged, and comes again: {error!r}"
        record.exc_info = None
    return True


class Broker(NatsBroker):
    """On a connection of ours, which is closed by whoever opened it. `grace`: seconds for what is in work at a stop."""

    def __init__(self, nc: Client, in_work: InWork, *, grace: float) -> None:
        # A logger of its own: "faststream" writes a line a message, in its own form. No injected parameters: FastStream
        # goes to another thread and back for each message where a function asks for the message itself.
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
        self._connection = None  # or it would be drained, which fails while the server is away
        await super().stop(exc_type, exc_val, exc_tb)
