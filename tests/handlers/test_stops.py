"""Handlers that are told to stop answer what they were given; the others get what comes after."""

import asyncio
import signal
import uuid
from pathlib import Path

from nats.js.errors import NotFoundError

from eventstore.parking.parking import REPORTS
from handlers.queues.queues import consumer_name
from runtime import subjects
from tests.handlers.platform import WriteSide, write_side
from tests.waiting import eventually


async def both_ready(side: WriteSide) -> bool:
    """Whether two of them read the queue of reports: what they begin with last."""
    try:
        queue = await side.nc.jetstream().consumer_info(subjects.REPORTS, consumer_name(REPORTS))
    except NotFoundError:  # the first of them has not come that far
        return False
    return bool(queue.num_waiting == 2)


async def test_no_command_is_lost_when_handlers_stop(servers_home: Path) -> None:
    """Each command is sent once: one without an answer would be a time-out of this test's."""
    home = servers_home / f"stops-{uuid.uuid4().hex[:8]}"
    home.mkdir()
    async with write_side(home) as side:
        await side.start()
        stopping, answered = asyncio.Event(), 0

        async def ask() -> None:
            nonlocal answered
            while not stopping.is_set():
                id_ = f"t-{uuid.uuid4().hex[:12]}"
                assert "ok" in await side.ask("system", "tag", "create", {"tag": id_, "name": id_})
                answered += 1

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        for _ in range(3):
            old = side.processes[-1]
            await side.start()
            await eventually(lambda: both_ready(side), "two handlers are ready")
            before = answered
            old.send_signal(signal.SIGTERM)
            assert await old.wait() == 0
            while answered < before + 20:  # by the new one
                await asyncio.sleep(0.05)
                assert not any(task.done() for task in asking), asking
        stopping.set()
        await asyncio.gather(*asking)
