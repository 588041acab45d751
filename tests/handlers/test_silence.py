"""Silence of nodes as one handlers process can know it: it accuses nobody for what it could not hear."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from domain.contract import Heartbeat
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore
from handlers.managers import liveness as module
from handlers.managers.driver import Driver
from handlers.managers.liveness import Liveness
from handlers.world.watch import Changes, Watch
from handlers.world.world import World
from runtime import subjects

TIMEOUT = 15.0


class Cloud:
    """One node, `n`, and the liveness of a process; time and the connection are as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.holder = SimpleNamespace(boot="b", pid=1, host="h", since=datetime(2026, 1, 1, tzinfo=UTC))
        self.node: Any = SimpleNamespace(id="n", lost=False, retired_at=None, lease=1, holder=self.holder)
        self.watch = Watch(("node",))
        self.bus = SimpleNamespace(is_connected=True, stats={"reconnects": 0})
        world: Any = SimpleNamespace(
            node=self.looked_up,
            ids=lambda _: ["n"],
            vm_index=SimpleNamespace(visible={}),
            watch=lambda kinds: self.watch,
        )
        store = cast(EventStore, None)
        self.liveness = Liveness(store, cast(World, world), TIMEOUT, bus=cast(Any, self.bus))
        self.lookups = 0

    def looked_up(self, _: str) -> Any:
        self.lookups += 1
        return self.node

    def beat(self) -> None:
        told = Heartbeat(node="n", at=datetime.now(UTC), boot="b", wanted_position=0, lease=1)
        assert self.liveness.hear(subjects.heartbeat("n"), told.model_dump_json().encode()) is None

    async def accused(self) -> bool:
        """Whether a look finds that the node's state is to be judged anew."""
        found: list[str] = []
        driver = SimpleNamespace(submit=lambda key, _: found.append(key))
        await self.liveness._look(Changes(frozenset(), everything=True), cast(Driver, driver))
        return bool(found)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    return Cloud(monkeypatch)


async def test_a_node_that_is_silent_is_accused(cloud: Cloud) -> None:
    cloud.beat()
    cloud.now += TIMEOUT
    assert not await cloud.accused()
    cloud.now += 1
    assert await cloud.accused()


async def test_nobody_is_accused_while_the_bus_is_away(cloud: Cloud) -> None:
    cloud.beat()
    cloud.bus.is_connected = False
    cloud.now += 10 * TIMEOUT
    assert not await cloud.accused()
    cloud.bus.is_connected = True
    cloud.bus.stats["reconnects"] = 1
    assert not await cloud.accused()
    cloud.now += TIMEOUT + 1
    assert await cloud.accused()


async def test_whoever_stood_by_while_the_bus_was_away_accuses_nobody_either(cloud: Cloud) -> None:
    """It looks for the first time when it gets the lease, long after it is connected again."""
    cloud.beat()
    cloud.now += 10 * TIMEOUT
    cloud.bus.stats["reconnects"] = 1
    assert not await cloud.accused()
    assert cloud.liveness.silence_of_holder("n") is not None
    silence = cloud.liveness.silence_of_holder("n")
    assert silence is not None and silence.seconds == 0
    cloud.now += TIMEOUT + 1
    assert await cloud.accused()


async def test_that_nobody_can_be_heard_is_no_sign_of_life(cloud: Cloud) -> None:
    cloud.beat()
    cloud.node.lost = True
    cloud.now += TIMEOUT + 1
    cloud.bus.stats["reconnects"] = 1
    assert not await cloud.accused(), "it was not heard since"
    cloud.beat()
    assert await cloud.accused(), "it is back"


async def test_a_daemon_that_has_just_got_the_lease_is_not_silent_yet(cloud: Cloud) -> None:
    cloud.now += 2 * TIMEOUT
    assert await cloud.accused()
    cloud.holder.since = datetime.now(UTC)
    assert not await cloud.accused()


async def test_a_look_costs_nothing_for_a_node_that_sends_heartbeats(cloud: Cloud) -> None:
    cloud.beat()
    assert not await cloud.accused()
    seen = cloud.lookups
    for _ in range(int(TIMEOUT)):
        assert not await cloud.accused()
    assert cloud.lookups == seen, "the node was looked at although nothing may have changed"


async def test_a_lost_node_is_looked_at_after_a_heartbeat_only(cloud: Cloud) -> None:
    cloud.beat()
    cloud.now += TIMEOUT + 1
    assert await cloud.accused()
    cloud.node.lost = True
    assert not await cloud.accused()
    seen = cloud.lookups
    cloud.now += 10 * TIMEOUT
    assert not await cloud.accused()
    assert cloud.lookups == seen
    cloud.beat()
    assert await cloud.accused()
    assert await cloud.accused(), "until it is marked as recovered"


async def test_a_node_whose_holder_changes_is_looked_at_again(cloud: Cloud) -> None:
    """The age of a lease is measured by the clock of the host, which may jump."""
    cloud.holder.since = datetime.now(UTC)
    cloud.now += TIMEOUT + 1
    assert not await cloud.accused(), "its daemon has just got the lease"
    cloud.holder.since -= timedelta(seconds=TIMEOUT + 1)
    assert await cloud.accused()


async def test_a_node_that_is_recorded_later_is_watched(cloud: Cloud) -> None:
    late, cloud.node = cloud.node, None
    assert not await cloud.accused()
    cloud.now += 2 * TIMEOUT
    cloud.node = late
    assert not await cloud.accused(), "nothing has changed as far as the world has said"
    cloud.watch.add(Ref("system", "node", "n"))
    assert await cloud.accused()
