"""The node's heartbeats. They show that its daemon lives, and how far it has read the wanted documents."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.errors import Error as NatsError

from domain.contract import MOST_ORPHANS, Heartbeat, ImageCache
from node_daemon.membership.membership import Membership
from runtime import logs, subjects
from runtime.tasks.tasks import happens

log = logs.get(__name__)

#: At least so many heartbeats are sent within the lifetime of a lease.
BEATS = 3
#: Seconds before the next heartbeat at least, when a new challenge came.
SOONEST = 0.2


def utc_now() -> datetime:
    return datetime.now(UTC)


class Pulse:
    """Sends heartbeats. Each one reports orphaned domains and the position in the wanted documents."""

    def __init__(
        self,
        bus: Client,
        node: str,
        seconds: float,
        position: Callable[[], int],
        membership: Membership,
        image_cache: Callable[[], ImageCache] | None = None,
        malformed: Callable[[], int] = lambda: 0,
        clock: Callable[[], datetime] = utc_now,
        refused_asks: Callable[[], int] = lambda: 0,
        asks_known: Callable[[], bool] = lambda: False,
    ) -> None:
        self._bus = bus
        self._node = node
        self._seconds = seconds
        self._position = position
        self._image_cache = image_cache
        self._membership = membership
        self._malformed = malformed
        self._clock = clock
        self._refused_asks = refused_asks
        self._asks_known = asks_known
        self.orphans: tuple[str, ...] = ()

    async def beat(self) -> None:
        """Publish for ever. While disconnected, send nothing: nats-py would deliver old heartbeats later in a burst."""
        inbox = self._bus.new_inbox()
        await self._bus.subscribe(inbox, cb=self._membership.on_answer)
        daemon = self._membership.daemon
        subject = subjects.heartbeat(self._node)
        while True:
            self._membership.challenged.clear()
            self._membership.before_heartbeat()
            if self._bus.is_connected and (self._membership.lease or self._membership.refused):
                heartbeat = Heartbeat(
                    node=self._node,
                    at=self._clock(),
                    boot=daemon.boot,
                    wanted_position=self._position(),
                    orphans=self.orphans[:MOST_ORPHANS],
                    lease=self._membership.lease,
                    daemon=daemon,
                    malformed=self._malformed(),
                    image_cache=self._image_cache() if self._image_cache is not None else None,
                    sequence=self._membership.next_beat(),
                    challenge=self._membership.challenge,
                    refused_asks=self._refused_asks(),
                    asks_known=self._asks_known(),
                )
                try:
                    body = heartbeat.model_dump_json().encode()
                    headers = self._membership.sign_heartbeat(subject, body)
                    await self._bus.publish(subject, body, reply=inbox, headers=headers)
                except NatsError as error:
                    log.warning("heartbeat not sent", error=repr(error))
            pause = min(self._seconds, self._membership.seconds / BEATS)
            if await happens(self._membership.challenged, pause):
                await asyncio.sleep(min(SOONEST, pause))
