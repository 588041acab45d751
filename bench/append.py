"""What an append costs, next to the barest durable publish that nats-py can do, on the same server in the same run.

The floor publishes a body of the same size and no headers: it expects nothing, chains nothing, and knows nothing of
unknown outcomes. Rounds of both alternate, and each pair of rounds makes one ratio: reported is the median.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from uuid import uuid4

from bench.log import AT, CONTEXT, Log, log
from domain.project import ProjectRenamed
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, EventStore, Tip

BODY = 300
IN_FLIGHT = 256
ALONE, MANY = 50, 1024
"""Appends in one round: one at a time, many at a time. Short rounds, so that both meet the same weather."""
ROUNDS, FEWER_ROUNDS = 41, 15
"""One at a time is a matter of microseconds, and wants more of them."""

EVENT = ProjectRenamed(
    at=AT,
    operation="o" * 36,
    fingerprint="f" * 64,
    name="n" * (BODY - len(ProjectRenamed(at=AT, operation="o" * 36, fingerprint="f" * 64, name="").model_dump_json())),
)

Work = Callable[[], Awaitable[object]]


async def measure() -> dict[str, Any]:
    async with log() as made:
        store = EventStore(made.ours, made.keys)
        figures: dict[str, Any] = {"body_bytes": len(EVENT.model_dump_json())}
        figures |= await compare("single", single(store), bare_single(made), ALONE, 1)
        figures |= await compare(f"single_{IN_FLIGHT}", single(store), bare_single(made), MANY, IN_FLIGHT)
        figures |= await compare("batch", batch(store), bare_batch(made), ALONE, 1)
        figures |= await compare(f"batch_{IN_FLIGHT}", batch(store), bare_batch(made), MANY, IN_FLIGHT)
        return figures


async def compare(name: str, ours: Work, floor: Work, count: int, in_flight: int) -> dict[str, float]:
    """Appends per second of both, the ratio, and the CPU time of this process for each append."""
    rounds = ROUNDS if in_flight == 1 else FEWER_ROUNDS
    for work in (ours, floor):
        await rate(work, count // 4, in_flight)  # warm
    pairs = [(await rate(ours, count, in_flight), await rate(floor, count, in_flight)) for _ in range(rounds)]
    return {
        f"{name}_per_second": round(statistics.median(mine.rate for mine, _ in pairs)),
        f"{name}_floor_per_second": round(statistics.median(bare.rate for _, bare in pairs)),
        f"{name}_ratio": round(statistics.median(mine.rate / bare.rate for mine, bare in pairs), 3),
        f"{name}_cpu_us": round(statistics.median(mine.cpu for mine, _ in pairs) * 1e6, 1),
        f"{name}_floor_cpu_us": round(statistics.median(bare.cpu for _, bare in pairs) * 1e6, 1),
    }


class Speed(NamedTuple):
    """`rate`: appends per second; `cpu`: seconds of CPU time of this process for each append."""

    rate: float
    cpu: float


async def rate(work: Work, count: int, in_flight: int) -> Speed:
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await work()

    used, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return Speed(count / (time.perf_counter() - started), (time.process_time() - used) / count)


def change() -> Change:
    """One event on an aggregate that nobody else uses."""
    id_ = uuid4().hex
    return Change(Tip(Ref(id_, "project", id_)), [EVENT])


def single(store: EventStore) -> Work:
    async def work() -> object:
        return await store.append([change()], CONTEXT)

    return work


def bare_single(made: Log) -> Work:
    js, body = made.bare.jetstream(), b"x" * BODY

    async def work() -> object:
        return await js.publish(f"floor.{uuid4().hex}", body)

    return work


def batch(store: EventStore) -> Work:
    """Two aggregates, all or nothing."""

    async def work() -> object:
        return await store.append([change(), change()], CONTEXT)

    return work


def bare_batch(made: Log) -> Work:
    """Two messages as the server's protocol asks for them, and nothing more."""
    body = b"x" * BODY

    async def work() -> object:
        name = uuid4().hex
        await made.bare.publish(
            f"floor.{uuid4().hex}", body, headers={"Nats-Batch-Id": name, "Nats-Batch-Sequence": "1"}
        )
        last = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1"}
        return await made.request(f"floor.{uuid4().hex}", body, last)

    return work
