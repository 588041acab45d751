"""When each node was last heard of, and what it said: kept in memory, from the heartbeats themselves."""

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from domain.contract import Heartbeat, ImageCache
from projections import times
from runtime import subjects


@dataclass
class Heartbeats:
    _seen: dict[str, datetime] = field(default_factory=dict)
    _caches: dict[str, ImageCache | None] = field(default_factory=dict)

    async def listen(self, nc: Client) -> None:
        """Hear every node from now on."""
        await nc.subscribe(subjects.HEARTBEATS, cb=self._hear)

    async def _hear(self, msg: Msg) -> None:
        node = msg.subject.split(".")[2]
        self._seen[node] = datetime.now(UTC)
        with contextlib.suppress(ValidationError):
            self._caches[node] = Heartbeat.model_validate_json(msg.data).image_cache

    def last_seen(self, node: str) -> str | None:
        """When the node was heard last; None when it was not since this gateway started."""
        seen = self._seen.get(node)
        return times.text(seen) if seen else None

    def image_cache(self, node: str) -> dict[str, int | None] | None:
        """How much the node keeps of base images, as it said last; None when it has not said."""
        cache = self._caches.get(node)
        return cache.model_dump() if cache is not None else None
