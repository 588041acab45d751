"""Essential tasks of a role: as soon as one of them ends, for any reason, the role ends.

A role without one of its tasks would look healthy, but not work. So it logs which task has ended and exits with a
status other than 0, and its supervisor starts it again.
"""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from runtime import logs
from runtime.tasks.patience import CannotRun
from runtime.tasks.tasks import end

log = logs.get(__name__)

T = TypeVar("T")


class TaskEnded(Exception):
    """An essential task has ended. This was logged."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the essential task {name} has ended")
        self.name = name


class Essential:
    """The essential tasks of a role. At the end of the block all of them are cancelled."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task, which runs until the end of the block."""
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        return task

    async def for_ever(self) -> None:
        """Wait for ever. Raises TaskEnded as soon as one of the tasks has ended, or its CannotRun."""
        await self.during(asyncio.Event().wait())

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`; returns or raises what it does. Raises TaskEnded as soon as a task has ended,
        or its CannotRun.
        """
        own = asyncio.create_task(work)
        try:
            await asyncio.wait({own, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            if own.done():
                return own.result()
            self._check()
            raise AssertionError("one of them is done")
        finally:
            await end([own])

    def _check(self) -> None:
        for task in self._tasks:
            if task.done():
                error = None if task.cancelled() else task.exception()
                if isinstance(error, CannotRun):
                    raise error
                reason = repr(error) if error is not None else "it returned"
                log.error("essential task ended", name=task.get_name(), error=reason, exc_info=error)
                raise TaskEnded(task.get_name()) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await end(self._tasks)


async def until_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until `stop` is set, then cancel it. Raises the errors of `work`; TaskEnded if it returns."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await task
            log.error("the role ended without a request to stop")
            raise TaskEnded("role")
    finally:
        await end([task, stopped])
