"""When each node was last heard of: kept in memory, from the heartbeats themselves."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.aio.msg import Msg

from projections import times
from runtime import subjects


@dataclass
class Heartbeats:
    _seen: dict[str, datetime] = field(default_factory=dict)

    async def listen(self, nc: Client) -> None:
        """Hear every node from now on."""
        await nc.subscribe(subjects.HEARTBEATS, cb=self._hear)

    async def _hear(self, msg: Msg) -> None:
        self._seen[msg.subject.split(".")[2]] = datetime.now(UTC)

    def last_seen(self, node: str) -> str | None:
        """When the node was heard last; None when it was not since this gateway started."""
        seen = self._seen.get(node)
        return times.text(seen) if seen else None
