"""Other processes that compute for this one, on both event loops: roles run on uvloop, tests on that of asyncio."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from runtime.tasks import workers
from runtime.tasks.workers import Worker

LARGE = [bytes(1024) for _ in range(20_000)]


async def program() -> None:
    worker = await Worker.start(__name__, 3)
    try:
        assert await worker.ask([1, None, "text"]) == [1, None, "text"] * 3
        assert await worker.ask(LARGE) == LARGE * 3, "more than a pipe or a socket holds"
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises((OSError, EOFError)):
            await worker.ask(LARGE)
    finally:
        await worker.stop()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_another_process_answers(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(program())


def repeating(times: int) -> Callable[[Any], Any]:
    return lambda request: request * times


if __name__ == "__main__":
    workers.serve(repeating)
