"""The last heartbeat of each node, kept in memory."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.contract import Daemon, Heartbeat, ImageCache
from projections import times
from projections.nodes import HeartbeatView, ImageCacheView, WaitingView
from runtime import subjects
from runtime.bus.malformed import Counted, Malformed, cut
from runtime.clock_offset import ClockOffset, warning

#: How long a refused daemon is shown after its last heartbeat, and how many per node.
SHOWN, MOST_WAITING = timedelta(seconds=30), 8
#: The source of malformed heartbeats, and how many nodes a reason names.
HEARTBEATS, MOST_NAMED = "heartbeats", 5
#: Maximum number of nodes in memory: anybody on the bus can send heartbeats under any name.
MOST_NODES = 10_000
#: Maximum number of nodes with wrong clocks that `/healthz` lists.
MOST_OFF = 10


def fresh(at: datetime) -> bool:
    return datetime.now(UTC) - at < SHOWN


@dataclass
class Heartbeats:
    #: seconds that a node's clock may differ from this one
    bound: float = 2.0
    _seen: dict[str, datetime] = field(default_factory=dict)
    _waiting: dict[str, dict[str, tuple[datetime, Daemon]]] = field(default_factory=dict)
    _unread: dict[str, int] = field(default_factory=dict)
    _refused_asks: dict[str, int] = field(default_factory=dict)
    _caches: dict[str, ImageCache | None] = field(default_factory=dict)
    _clocks: dict[str, ClockOffset] = field(default_factory=dict)
    #: malformed heartbeats
    malformed: Malformed = field(default_factory=Malformed)
    #: daemons that were refused since this gateway started
    refused: int = 0

    async def listen(self, nc: Client) -> None:
        """Receive the heartbeats of all nodes from now on."""
        await nc.subscribe(subjects.HEARTBEATS, cb=self._receive)

    async def _receive(self, msg: Msg) -> None:
        """Process a heartbeat. The subject names its node; a malformed one does not count as a heartbeat."""
        node = subjects.node_of(msg.subject)
        try:
            beat = Heartbeat.model_validate_json(msg.data)
            if beat.node != node:
                raise ValueError("it names another node than its subject")
        except ValueError as error:
            self.malformed.note(HEARTBEATS, msg.subject, error)
            return
        if beat.lease == 0:
            self._note_waiting(node, beat)
            return
        self._waiting.get(node, {}).pop(beat.boot, None)
        self._seen.pop(node, None)
        self._seen[node] = now = datetime.now(UTC)
        self._clocks.setdefault(node, ClockOffset()).note(beat.at, now)
        self._caches[node] = beat.image_cache
        self._unread[node] = beat.malformed
        self._refused_asks[node] = beat.refused_asks
        if len(self._seen) > MOST_NODES:
            longest_silent = next(iter(self._seen))
            for book in (self._seen, self._caches, self._unread, self._refused_asks, self._clocks):
                book.pop(longest_silent, None)

    def _note_waiting(self, node: str, beat: Heartbeat) -> None:
        waiting = {boot: one for boot, one in self._waiting.get(node, {}).items() if fresh(one[0])}
        if beat.daemon is not None and (beat.boot in waiting or len(waiting) < MOST_WAITING):
            self.refused += beat.boot not in waiting
            waiting[beat.boot] = (datetime.now(UTC), beat.daemon)
        self._waiting.pop(node, None)
        if len(self._waiting) >= MOST_NODES:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[node] = waiting

    def view(self, node: str) -> HeartbeatView:
        """What the API shows of a node's heartbeats."""
        offset = self.clock_offset(node)
        return {
            "waiting": self.waiting(node),
            "malformed_documents": self.unread(node),
            "last_seen": self.last_seen(node),
            "clock_offset_seconds": offset,
            "clock_warning": warning(offset, self.bound),
            "image_cache": self.image_cache(node),
        }

    def waiting(self, node: str) -> list[WaitingView]:
        """The daemons with this name that wait until the working one ends."""
        found = self._waiting.get(node, {}).values()
        return [{"host": daemon.host, "pid": daemon.pid} for at, daemon in found if fresh(at)]

    def all_waiting(self) -> int:
        """The number of waiting daemons of all nodes."""
        return sum(len(self.waiting(node)) for node in list(self._waiting))

    def last_seen(self, node: str) -> str | None:
        """The time of the node's last heartbeat; None if there was none since this gateway started."""
        seen = self._seen.get(node)
        return times.text(seen) if seen else None

    def within(self, node: str, seconds: float) -> bool:
        """Whether the node sent a heartbeat in the last so many seconds."""
        seen = self._seen.get(node)
        return seen is not None and datetime.now(UTC) - seen < timedelta(seconds=seconds)

    def names(self, most: int) -> list[str]:
        """The nodes with a heartbeat since this gateway started, at most so many."""
        return sorted(self._seen)[:most]

    def unread(self, node: str) -> int | None:
        """How many wanted documents the node cannot read, by its last heartbeat."""
        return self._unread.get(node)

    def refused_asks(self) -> Counted | None:
        """How many questions the living nodes refused, because no gateway asked them; None if there were none."""
        nodes = [node for node, count in self._refused_asks.items() if count and fresh(self._seen[node])]
        if not nodes:
            return None
        return Counted(
            count=sum(self._refused_asks[node] for node in nodes),
            last_at=self._seen[nodes[-1]],
            last_subject=subjects.asks_of(nodes[-1]),
            last_reason=cut(f"nodes that were asked by others than gateways: {', '.join(nodes[:MOST_NAMED])}"),
        )

    def cannot_read(self) -> Counted | None:
        """How many documents the living nodes cannot read; None if they can read all."""
        nodes = [node for node, count in self._unread.items() if count and fresh(self._seen[node])]
        if not nodes:
            return None
        return Counted(
            count=sum(self._unread[node] for node in nodes),
            last_at=self._seen[nodes[-1]],
            last_subject=subjects.wanted_of(nodes[-1]),
            last_reason=cut(f"nodes that cannot read some of their documents: {', '.join(nodes[:MOST_NAMED])}"),
        )

    def clock_offset(self, node: str) -> float | None:
        """Seconds that the node's clock is ahead of this one (negative: behind); None if unknown."""
        clock = self._clocks.get(node)
        return clock.seconds() if clock is not None else None

    def clock_warning(self, node: str) -> str | None:
        """A sentence about the node's clock if it is wrong; else None."""
        return warning(self.clock_offset(node), self.bound)

    def clock_offsets(self) -> dict[str, float]:
        """The clock offsets of all nodes with a recent heartbeat, in seconds."""
        found = {node: self.clock_offset(node) for node, seen in list(self._seen.items()) if fresh(seen)}
        return {node: seconds for node, seconds in found.items() if seconds is not None}

    def clocks_off(self) -> list[dict[str, object]]:
        """The nodes whose clock offsets exceed the bound, the largest first."""
        beyond = [(node, seconds) for node, seconds in self.clock_offsets().items() if abs(seconds) > self.bound]
        beyond.sort(key=lambda each: (-abs(each[1]), each[0]))
        return [{"node": node, "offset_seconds": seconds} for node, seconds in beyond[:MOST_OFF]]

    def image_cache(self, node: str) -> ImageCacheView | None:
        """The base images that the node keeps, by its last heartbeat; None if unknown."""
        cache = self._caches.get(node)
        return cast(ImageCacheView, cache.model_dump()) if cache is not None else None
