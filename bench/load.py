"""What loading one aggregate costs, all its events read and folded, next to the server's batched direct get alone.

The floor asks for the same messages with bare nats-py and looks into none of them. With a snapshot it is
`eventsourcing`'s repository on our recorders that loads: the snapshot, and the ten events behind it. `operations.py`
measures what a long history costs a command.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from nats.aio.client import Client

from bench import operations
from bench.log import AT, CONTEXT, Log, life, log
from domain.base import Event
from domain.vm import VmStarted, VmStartRequested, VmStopped, VmStopRequested, evolve
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, EventStore, Tip
from runtime import subjects
from runtime.tasks.tasks import heed_cancellation

LENGTHS = (10, 100, 1000)
BEHIND = 10
"""Events behind the snapshot."""
ROUNDS = 41

Work = Callable[[], Awaitable[object]]


async def measure() -> dict[str, Any]:
    async with log() as made:
        store = EventStore(made.ours, made.keys)
        figures: dict[str, Any] = {}
        for length in LENGTHS:
            ref = Ref("bench", "vm", str(uuid4()))
            await store.append([Change(Tip(ref), list(islice(history(ref.id), length)))], CONTEXT)
            figures |= await compare(str(length), whole(store, ref), direct_get(made.bare, ref.subject, length))
        return figures | await with_snapshot(made) | await operations.measure(made)


def history(vm: str) -> Iterator[Event]:
    """The life of a VM that is stopped and started again and again."""
    yield from life(vm)
    for count in range(2, 10_000):
        asked = {"at": AT, "operation": str(uuid4()), "fingerprint": "f" * 64, "deadline": AT}
        yield VmStartRequested.model_validate(asked)
        yield VmStarted(at=AT, node="n1", sequence=2 * count, boots=count, addresses=("192.168.122.17",))
        yield VmStopRequested.model_validate({**asked, "operation": str(uuid4()), "force_after": AT})
        yield VmStopped(at=AT, node="n1", sequence=2 * count + 1, cause="requested")


def whole(store: EventStore, ref: Ref) -> Work:
    async def work() -> object:
        return await store.load(ref, evolve)

    return work


def direct_get(nc: Client, subject: str, length: int, stream: str = subjects.EVENTS) -> Work:
    """All messages of a subject, as the server's protocol asks for them."""
    ask = json.dumps({"seq": 1, "next_by_subj": subject, "batch": length}).encode()

    async def work() -> object:
        inbox, left, done = nc.new_inbox(), length, asyncio.Event()

        async def arrived(_: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:  # the last one says that there are no more
                done.set()

        subscription = await nc.subscribe(inbox, cb=arrived)
        await nc.publish(f"$JS.API.DIRECT.GET.{stream}", ask, reply=inbox)
        await done.wait()
        await subscription.unsubscribe()
        return None

    return work


async def compare(name: str, ours: Work, floor: Work) -> dict[str, float]:
    """Milliseconds of both (median), and how much of our speed is the floor's."""
    for work in (ours, floor):
        await work()
    pairs = [(await timed(ours), await timed(floor)) for _ in range(ROUNDS)]
    return {
        f"load_{name}_ms": round(statistics.median(mine for mine, _ in pairs) * 1e3, 2),
        f"load_{name}_floor_ms": round(statistics.median(bare for _, bare in pairs) * 1e3, 2),
        f"load_{name}_ratio": round(statistics.median(bare / mine for mine, bare in pairs), 3),
    }


async def timed(work: Work) -> float:
    heed_cancellation()
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


class Counter(Aggregate):
    """An aggregate in the library's terms."""

    def __init__(self) -> None:
        self.count = 0

    @event("Counted")
    def more(self) -> None:
        self.count += 1


class Counters(Application[UUID]):
    is_snapshotting_enabled = True


async def with_snapshot(made: Log) -> dict[str, float]:
    """A thousand events with a snapshot shortly before their end, and the same without."""
    environment = {"PERSISTENCE_MODULE": "eventstore.library.recorder", "NATS_URL": made.url}
    with Counters(env=environment) as application:
        ids = []
        for snapshot in (True, False):
            counter = Counter()
            while counter.version < LENGTHS[-1]:
                counter.more()
                if snapshot and counter.version == LENGTHS[-1] - BEHIND:
                    application.save(counter)
                    application.take_snapshot(counter.id)
            application.save(counter)
            ids.append(counter.id)
        work = [get(application, id_) for id_ in ids]
        figures = await compare(
            "snapshot", work[0], direct_get(made.bare, f"*.events.{ids[0]}", BEHIND, "COUNTERS_EVENTS")
        )
        bare = direct_get(made.bare, f"*.events.{ids[1]}", LENGTHS[-1], "COUNTERS_EVENTS")
        return figures | await compare("no_snapshot", work[1], bare)


def get(application: Counters, id_: UUID) -> Work:
    async def work() -> object:
        found: Counter = application.repository.get(id_)
        if found.count != LENGTHS[-1] - 1:
            raise RuntimeError(f"counted {found.count}")
        return found

    return work
