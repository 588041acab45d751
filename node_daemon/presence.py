"""The node's place in the cloud: it registers, and then shows that it is alive."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.errors import Error as NatsError

from domain.contract import Heartbeat, ImageCache, NodeInfo
from node_daemon.hypervisor import Refused, Unreachable
from runtime import logs, replies, subjects

log = logs.get(__name__)

#: Seconds between two tries to register: doubled from the first to the last.
FIRST_RETRY, LAST_RETRY = 0.25, 10.0
#: Seconds between looks whether the node has become another (more memory, another network).
LOOK_AGAIN = 60.0
ANSWER_SECONDS = 5.0


async def stay_registered(bus: Client, node: str, describe: Callable[[], Awaitable[NodeInfo]]) -> None:
    """Register the node, and again whenever what `describe` says of it changes. Never returns."""
    known: NodeInfo | None = None
    while True:
        delay, quiet = FIRST_RETRY, False
        while True:
            try:
                info = await describe()
                if info != known:
                    await register(bus, info)
                    known = info
                break
            except (NatsError, TimeoutError, Unreachable, Refused, NotRegistered) as error:
                if not quiet:
                    log.warning("cannot register; trying on", node=node, error=str(error) or repr(error))
                quiet = True
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY)
        await asyncio.sleep(LOOK_AGAIN)


class NotRegistered(Exception):
    """The handlers refused; the text says why."""


async def register(bus: Client, info: NodeInfo) -> None:
    """Ask the handlers to know this node. Raises NotRegistered, or what NATS raises when nobody answers."""
    request = {
        "args": {"node": info.node, "info": info.model_dump(mode="json")},
        "context": {"actor": f"node:{info.node}"},
    }
    answer = await bus.request(
        subjects.command(subjects.SYSTEM, "node", "register"),
        json.dumps(request).encode(),
        timeout=ANSWER_SECONDS,
    )
    try:
        reply = replies.read(answer.data)
    except replies.Nonsense as error:
        raise NotRegistered(f"the handlers answered nonsense: {error}") from error
    if isinstance(reply, replies.Refusal):
        raise NotRegistered(f"{reply.code}: {reply.detail}")
    log.info("node registered", **info.model_dump(exclude={"version"}))


class Pulse:
    """Heartbeats, each with what was last seen of orphans and of the wanted documents."""

    def __init__(
        self,
        bus: Client,
        node: str,
        seconds: float,
        position: Callable[[], int],
        image_cache: Callable[[], ImageCache] | None = None,
    ) -> None:
        self._bus = bus
        self._node = node
        self._seconds = seconds
        self._position = position
        self._image_cache = image_cache
        self._boot = uuid.uuid4().hex
        self.orphans: tuple[str, ...] = ()

    async def beat(self) -> None:
        """Publish for ever; while the bus is away, nothing, so that no old heartbeats come in a burst later."""
        while True:
            if self._bus.is_connected:
                heartbeat = Heartbeat(
                    node=self._node,
                    at=datetime.now(UTC),
                    boot=self._boot,
                    wanted_position=self._position(),
                    orphans=self.orphans,
                    image_cache=self._image_cache() if self._image_cache is not None else None,
                )
                try:
                    await self._bus.publish(subjects.heartbeat(self._node), heartbeat.model_dump_json().encode())
                except NatsError as error:
                    log.warning("heartbeat not sent", error=repr(error))
            await asyncio.sleep(self._seconds)
