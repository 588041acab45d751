"""The metrics of a gateway, for Prometheus."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from runtime.bus.malformed import Counted

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Metrics:
    """One registry per gateway, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.commands = Counter(
            "nebula_commands",
            "Commands by kind, verb and outcome (accepted, replayed, refused, unavailable)",
            ["kind", "verb", "outcome"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "nebula_refusals", "Answers that were problem documents", ["code"], registry=self.registry
        )
        self._requests = Histogram(
            "nebula_request_seconds",
            "Seconds until the answer began",
            ["route", "status"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.feeds = Gauge("nebula_feed_clients", "Clients that follow a feed", registry=self.registry)
        self.position = Gauge("nebula_projection_position", "Log position of the read models", registry=self.registry)
        self.building = Gauge(
            "nebula_projection_building_position",
            "Log position of read models of a new version while they are built; -1 otherwise",
            registry=self.registry,
        )

        self._daemons_refused = Counter(
            "nebula_node_daemons_refused",
            "Node daemons that were refused because another one works for their node",
            registry=self.registry,
        )
        self._daemons_waiting = Gauge(
            "nebula_node_daemons_waiting",
            "Node daemons that wait because another one works for their node",
            registry=self.registry,
        )
        self._clock_offset = Gauge(
            "nebula_node_clock_offset_seconds",
            "Seconds that the clock of a node is ahead of the gateway's (negative: behind)",
            ["node"],
            registry=self.registry,
        )
        self._refused = 0
        self._parked = Gauge(
            "nebula_parked_messages", "Parked messages that are open", ["source"], registry=self.registry
        )
        self._parked_more = Gauge(
            "nebula_parked_more",
            "Messages for which there was no room among the parked ones; they were only counted",
            ["source"],
            registry=self.registry,
        )
        self._malformed = Gauge(
            "nebula_malformed_messages",
            "Malformed messages that are not stored; for wanted documents, those that nodes cannot read now",
            ["source"],
            registry=self.registry,
        )
        self._bus_refusals = Counter(
            "nebula_bus_refusals",
            "Publishes, subscriptions and connections that the servers of the bus refused, by code",
            ["code"],
            registry=self.registry,
        )
        self._of_bus: dict[str, int] = {}
        self._by_route: dict[tuple[str, int], Histogram] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer. Label lookups are cached, because they cost more than counting."""
        found = self._by_route.get((route, status))
        if found is None:
            found = self._by_route[route, status] = self._requests.labels(route, status)
        found.observe(seconds)

    def parked_are(self, counts: Mapping[str, int], more: Mapping[str, int]) -> None:
        """Set the numbers of open parked messages, and of messages without room, by source."""
        for gauge, values in ((self._parked, counts), (self._parked_more, more)):
            gauge.clear()
            for source in {"log", "reports", *values}:
                gauge.labels(source).set(values.get(source, 0))

    def bus_refusals_are(self, counts: Mapping[str, int]) -> None:
        """Set how much the servers of the bus have refused so far, by code."""
        for code, count in counts.items():
            self._bus_refusals.labels(code).inc(count - self._of_bus.get(code, 0))
        self._of_bus = dict(counts)

    def malformed_are(self, found: Mapping[str, Counted]) -> None:
        """Set the numbers of malformed messages, by source."""
        self._malformed.clear()
        for source, counted in found.items():
            self._malformed.labels(source).set(counted.count)

    def daemons_are(self, refused: int, waiting: int) -> None:
        """Set how many node daemons were refused so far, and how many wait now."""
        self._daemons_refused.inc(refused - self._refused)
        self._refused = refused
        self._daemons_waiting.set(waiting)

    def clocks_are(self, offsets: Mapping[str, float]) -> None:
        """Set the clock offsets, by node."""
        self._clock_offset.clear()
        for node, seconds in offsets.items():
            self._clock_offset.labels(node).set(seconds)

    def identity_behind(self, seconds: Callable[[], float | None]) -> None:
        """Show for how long the gateway has not been sure to know all accounts and tokens; -1 if it never was."""
        gauge = Gauge(
            "nebula_identity_behind_seconds",
            "Seconds since the gateway last knew all accounts and tokens of the log; -1 before the first time",
            registry=self.registry,
        )
        gauge.set_function(lambda: -1.0 if (behind := seconds()) is None else behind)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
