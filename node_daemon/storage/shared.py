"""Work that is done once for several concurrent callers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Stage = Literal["arriving", "from source", "converting"]

Hear = Callable[[Stage, int, int | None], None]
"""Called with the progress of an image: the stage, the bytes that are done, and the bytes in total
if they are known.
"""


@dataclass
class Run(Generic[T]):
    task: asyncio.Task[T]
    waiting: dict[object, Hear] = field(default_factory=dict)
    #: it was cancelled because the last waiting caller has left
    cancelled: bool = False


class Shared(Generic[T]):
    """Runs one task for each key at a time. Concurrent callers with the same key share it, and all get its progress.

    The task is cancelled when its last caller is cancelled. A later caller waits until it has ended, and starts a new
    one.
    """

    def __init__(self) -> None:
        self._runs: dict[str, Run[T]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._runs

    async def do(self, key: str, work: Callable[[Hear], Awaitable[T]], hear: Hear) -> T:
        """Run `work`, or join the running task. Returns or raises what `work` does."""
        while (run := self._runs.get(key)) is not None and run.cancelled:
            await asyncio.wait({run.task})
        if run is None:
            run = self._runs[key] = self._begin(key, work)
        ticket = object()
        run.waiting[ticket] = hear
        try:
            return await asyncio.shield(run.task)
        finally:
            del run.waiting[ticket]
            if not run.waiting and not run.task.done():
                run.cancelled = True
                run.task.cancel()

    def _begin(self, key: str, work: Callable[[Hear], Awaitable[T]]) -> Run[T]:
        def hear_all(stage: Stage, done: int, total: int | None) -> None:
            for hear in list(run.waiting.values()):
                hear(stage, done, total)

        async def task() -> T:
            return await work(hear_all)

        run: Run[T] = Run(asyncio.create_task(task()))
        run.task.add_done_callback(lambda _: self._ended(key))
        return run

    def _ended(self, key: str) -> None:
        run = self._runs.pop(key)
        if not run.task.cancelled():
            run.task.exception()  # retrieve it: otherwise asyncio logs it if no caller waits any more
