"""How fast a work queue hands out reports, next to plain nats-py on the same stream in the same run.

The function of the queue does nothing, and the floor reads, checks and acknowledges the same messages. Rounds of both
alternate, and each pair of rounds makes one ratio: reported is the median. CPU time is that of this process alone.
"""

import asyncio
import statistics
import time
from typing import Any
from uuid import uuid4

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout

from bench.log import AT, log
from domain.contract import NodeReport, Power
from eventstore.parking.parking import REPORTS, Parking
from handlers.queues.queues import BATCH, Queues, consumer
from runtime import subjects
from runtime.tasks.tasks import heed_cancellation

COUNT, ROUNDS = 4000, 9
BODY = NodeReport(vm=str(uuid4()), node="n1", epoch=1, lease=3, sequence=5, at=AT, power=Power.ON).model_dump_json()


async def measure() -> dict[str, Any]:
    async with log() as made:
        pairs = [(await rate(made.ours, queue), await rate(made.ours, bare)) for _ in range(ROUNDS)]
    return {
        "per_second": round(statistics.median(ours[0] for ours, _ in pairs)),
        "floor_per_second": round(statistics.median(floor[0] for _, floor in pairs)),
        "ratio": round(statistics.median(ours[0] / floor[0] for ours, floor in pairs), 3),
        "cpu_us": round(statistics.median(ours[1] for ours, _ in pairs)),
        "floor_cpu_us": round(statistics.median(floor[1] for _, floor in pairs)),
    }


async def rate(nc: Client, read: Any) -> tuple[float, float]:
    """Reports per second, and microseconds of CPU for each."""
    heed_cancellation()
    js = nc.jetstream()
    for _ in range(COUNT // 250):
        subject = subjects.report("n1", "vm", uuid4().hex)  # a stream of reports keeps the newest of each subject only
        for n in range(250):
            await js.publish_async(f"{subject}-{n}", BODY.encode())
        await js.publish_async_completed()
    started, cpu = time.perf_counter(), time.process_time()
    await read(nc)
    figures = COUNT / (time.perf_counter() - started), (time.process_time() - cpu) / COUNT * 1e6
    await js.purge_stream(subjects.REPORTS)
    return figures


async def queue(nc: Client) -> None:
    left, done = COUNT, asyncio.Event()
    queues = Queues(nc, Parking(nc), 10)

    @queues.of(REPORTS, subjects.REPORTS_OF_ALL)
    async def on_report(report: NodeReport, subject: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    await queues.start()
    await done.wait()
    await queues.stop()


async def bare(nc: Client) -> None:
    js = nc.jetstream()
    config = consumer(REPORTS, subjects.REPORTS_OF_ALL)
    await js.add_consumer(subjects.REPORTS, config)
    pulls = await js.pull_subscribe_bind(consumer=config.durable_name or "", stream=subjects.REPORTS)
    left = COUNT

    async def one(msg: Msg) -> None:
        NodeReport.model_validate_json(msg.data)
        await msg.ack()

    while left:
        try:
            found = await pulls.fetch(BATCH, timeout=1)
        except NatsTimeout:
            continue
        await asyncio.gather(*map(one, found))
        left -= len(found)
    await pulls.unsubscribe()
