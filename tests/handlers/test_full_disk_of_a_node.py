"""VMs that found their node's disk full wait for as long as the node says that it is."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

from domain.base import replace
from domain.contract import Heartbeat, ImageCache
from domain.vm import Phase, Vm
from eventstore.log.store import EventStore
from handlers.managers.deadlines import restarts
from handlers.managers.liveness import ROOM, Liveness
from handlers.world.due import Due
from handlers.world.vms import next_time
from handlers.world.world import World
from runtime import subjects
from tests.domain.lives import NODE, SCHEDULED, broken, given
from tests.domain.story import at


def beat(node: str, free: int | None, *, lease: int = 1, says: bool = True) -> bytes:
    cache = ImageCache(images=0, bytes=0, free_bytes=free) if says else None
    told = Heartbeat(node=node, at=datetime.now(UTC), boot="b", wanted_position=0, lease=lease, image_cache=cache)
    return told.model_dump_json().encode()


def liveness(timeout: float = 600) -> Liveness:
    known = SimpleNamespace(
        lost=False, lease=1, holder=SimpleNamespace(boot="b", pid=1, host="h", since=datetime.now(UTC))
    )
    world = SimpleNamespace(node=lambda _: known, watch=World().watch)
    return Liveness(cast(EventStore, None), cast(World, world), timeout)


def of_one(found: Vm) -> World:
    """A world with this VM alone."""
    due = Due()
    due.set(found.id, next_time(found))
    return cast(World, SimpleNamespace(due=due, vm=lambda _: SimpleNamespace(state=found)))


def test_what_a_node_says_of_its_disk_counts_while_it_is_heard() -> None:
    heard = liveness()
    assert not heard.disk_is_full(NODE), "what nobody knows is no reason to wait"
    for free, full in ((0, True), (ROOM - 1, True), (ROOM, False), (1 << 40, False), (None, False)):
        heard.hear(subjects.heartbeat(NODE), beat(NODE, free))
        assert heard.disk_is_full(NODE) is full, free
    heard.hear(subjects.heartbeat(NODE), beat(NODE, 0))
    heard.hear(subjects.heartbeat(NODE), beat("other", ROOM))  # claims to be another one
    heard.hear(subjects.heartbeat(NODE), beat(NODE, ROOM, lease=0))  # waits for the lease
    assert heard.disk_is_full(NODE)
    heard.hear(subjects.heartbeat(NODE), beat(NODE, 0, says=False))  # a daemon of before
    assert not heard.disk_is_full(NODE)
    silent = liveness(timeout=-1)
    silent.hear(subjects.heartbeat(NODE), beat(NODE, 0))
    assert not silent.disk_is_full(NODE)


def test_they_are_started_once_it_says_that_there_is_room() -> None:
    waiting = given([*SCHEDULED, broken(1, code="disk_full", seconds=50)]).state
    assert waiting is not None
    world = of_one(waiting)
    assert restarts(world, at(54), lambda _: False) == []
    assert restarts(world, at(5000), lambda node: node == NODE) == []
    (due,) = restarts(world, at(5000), lambda node: node != NODE)
    assert due.vm == waiting.id
    assert restarts(world, at(6000), lambda _: False)[0].operation == due.operation, "one operation for one time"
    off = replace(waiting, phase=Phase.STOPPED)  # by its policy: that needs no room
    assert restarts(of_one(off), at(5000), lambda _: True) != []
