"""Work that several wait for and that is done once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from runtime.download import Tell

T = TypeVar("T")


@dataclass
class Run(Generic[T]):
    task: asyncio.Task[T]
    waiting: dict[object, Tell] = field(default_factory=dict)
    #: the last who waited has left
    ending: bool = False


class Shared(Generic[T]):
    """One run for each key at a time. Whoever asks meanwhile waits for the same one, and hears how far it is.

    It is cancelled when the last who waits for it leaves; whoever asks after that begins once it has ended.
    """

    def __init__(self) -> None:
        self._runs: dict[str, Run[T]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._runs

    async def do(self, key: str, work: Callable[[Tell], Awaitable[T]], tell: Tell) -> T:
        """What `work` returns or raises."""
        while (run := self._runs.get(key)) is not None and run.ending:
            await asyncio.wait({run.task})
        if run is None:
            run = self._runs[key] = self._begin(key, work)
        ticket = object()
        run.waiting[ticket] = tell
        try:
            return await asyncio.shield(run.task)
        finally:
            del run.waiting[ticket]
            if not run.waiting and not run.task.done():
                run.ending = True
                run.task.cancel()

    def _begin(self, key: str, work: Callable[[Tell], Awaitable[T]]) -> Run[T]:
        def told(done: int, total: int | None) -> None:
            for tell in list(run.waiting.values()):
                tell(done, total)

        async def begun() -> T:
            return await work(told)

        run: Run[T] = Run(asyncio.create_task(begun()))
        run.task.add_done_callback(lambda _: self._ended(key))
        return run

    def _ended(self, key: str) -> None:
        run = self._runs.pop(key)
        if not run.task.cancelled():
            run.task.exception()  # looked at: nobody may wait for it any more
