"""Work that several wait for and that is done once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Stage = Literal["arriving", "from source", "converting"]

Hear = Callable[[Stage, int, int | None], None]
"""Told what is done with an image, how many bytes of it that is, and of how many, where that is known."""


@dataclass
class Run(Generic[T]):
    task: asyncio.Task[T]
    waiting: dict[object, Hear] = field(default_factory=dict)
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

    async def do(self, key: str, work: Callable[[Hear], Awaitable[T]], hear: Hear) -> T:
        """What `work` returns or raises."""
        while (run := self._runs.get(key)) is not None and run.ending:
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
                run.ending = True
                run.task.cancel()

    def _begin(self, key: str, work: Callable[[Hear], Awaitable[T]]) -> Run[T]:
        def heard(stage: Stage, done: int, total: int | None) -> None:
            for hear in list(run.waiting.values()):
                hear(stage, done, total)

        async def begun() -> T:
            return await work(heard)

        run: Run[T] = Run(asyncio.create_task(begun()))
        run.task.add_done_callback(lambda _: self._ended(key))
        return run

    def _ended(self, key: str) -> None:
        run = self._runs.pop(key)
        if not run.task.cancelled():
            run.task.exception()  # looked at: nobody may wait for it any more
