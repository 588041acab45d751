"""Handlers that are told to stop answer what they were given; the others get what comes after."""

import asyncio
import os
import signal
import uuid
from pathlib import Path

from runtime.tasks.tasks import AGAIN
from tests.handlers.platform import WriteSide, write_side
from tests.waiting import eventually


async def who_answers(side: WriteSide) -> str:
    """The id of the process that answered a command."""
    return str((await side.decided("system", "health", "check", {}))["ok"]["process"])


async def start_another(side: WriteSide, known: set[str]) -> None:
    """Start a further process, and wait until it answers. `known`: the ids of those that do."""

    async def answers() -> bool:
        known.add(await who_answers(side))
        return len(known) == len(side.processes)

    await side.start()
    await eventually(answers, "the new process answers, too")


async def test_no_command_is_lost_when_handlers_stop(servers_home: Path) -> None:
    """Each command is sent once: one without an answer would be a time-out of this test's."""
    home = servers_home / f"stops-{uuid.uuid4().hex[:8]}"
    home.mkdir()
    async with write_side(home) as side:
        known = set[str]()
        await start_another(side, known)
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
            await start_another(side, known)
            before = answered
            old.send_signal(signal.SIGTERM)
            assert await old.wait() == 0
            while answered < before + 20:  # by the new one
                await asyncio.sleep(0.05)
                assert not any(task.done() for task in asking), asking
        stopping.set()
        await asyncio.gather(*asking)


async def test_commands_are_answered_although_the_stop_takes_long(servers_home: Path) -> None:
    """While the server is paused nothing is stored and no answer arrives, for longer than a task has time to end."""
    home = servers_home / f"stops-{uuid.uuid4().hex[:8]}"
    home.mkdir()
    async with write_side(home) as side:
        known = set[str]()
        await start_another(side, known)
        stopping = asyncio.Event()

        async def ask() -> None:
            while not stopping.is_set():
                id_ = f"t-{uuid.uuid4().hex[:12]}"
                assert "ok" in await side.ask("system", "tag", "create", {"tag": id_, "name": id_})

        asking = [asyncio.create_task(ask()) for _ in range(16)]
        for _ in range(2):
            old = side.processes[-1]
            await start_another(side, known)
            os.kill(side.nats.pid, signal.SIGSTOP)
            try:
                old.send_signal(signal.SIGTERM)
                await asyncio.sleep(2 * AGAIN + 0.3)
            finally:
                os.kill(side.nats.pid, signal.SIGCONT)
            assert await old.wait() == 0
        stopping.set()
        await asyncio.gather(*asking)
