"""Handlers that are told to stop answer what they were given; the others get what comes after."""

import asyncio
import signal
import uuid
from pathlib import Path

from tests.handlers.platform import WriteSide, write_side
from tests.waiting import eventually


async def who_answers(side: WriteSide) -> str:
    """The id of the process that answered a command."""
    return str((await side.decided("system", "health", "check", {}))["ok"]["process"])


async def test_no_command_is_lost_when_handlers_stop(servers_home: Path) -> None:
    """Each command is sent once: one without an answer would be a time-out of this test's."""
    home = servers_home / f"stops-{uuid.uuid4().hex[:8]}"
    home.mkdir()
    async with write_side(home) as side:
        await side.start()
        known = {await who_answers(side)}
        stopping, answered = asyncio.Event(), 0

        async def a_new_one_answers() -> bool:
            known.add(await who_answers(side))
            return len(known) == len(side.processes)

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
            await eventually(a_new_one_answers, "the new process answers, too")
            before = answered
            old.send_signal(signal.SIGTERM)
            assert await old.wait() == 0
            while answered < before + 20:  # by the new one
                await asyncio.sleep(0.05)
                assert not any(task.done() for task in asking), asking
        stopping.set()
        await asyncio.gather(*asking)
