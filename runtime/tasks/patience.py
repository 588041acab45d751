"""Waiting for a server that is not there yet: one line when it begins, one when it is over, and pauses that grow."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.errors import Error as NatsError

from runtime import logs
from runtime.tasks.backoff import Backoff
from runtime.text.masking import masked

log = logs.get(__name__)

T = TypeVar("T")

RETRY = Backoff(first=0.2, last=5.0)

#: What passes once a NATS server is there, has a leader, and has room.
PASSING: tuple[type[Exception], ...] = (NatsError, OSError, TimeoutError)


class CannotRun(Exception):
    """What waiting cannot mend: a refused password, a stream that promises too little. The text says what to change."""


def one_line(error: Exception) -> str:
    """What went wrong, in one line without credentials."""
    return masked(" ".join(str(error).split()) or repr(error))


def waits(what: str, error: Exception) -> None:
    """The default of what is said when the waiting begins."""
    log.warning("waiting for a server", what=what, error=one_line(error))


def is_there(what: str) -> None:
    """The default of what is said when it is over."""
    log.warning("the server answers", what=what)


async def patiently(
    what: str,
    attempt: Callable[[], Awaitable[T]],
    passing: tuple[type[Exception], ...] = PASSING,
    *,
    begins: Callable[[str, Exception], None] = waits,
    ends: Callable[[str], None] = is_there,
) -> T:
    """What `attempt` returns once it succeeds. Any error that is not `passing` is raised, and so is CannotRun."""
    waiting = False
    for pause in RETRY.pauses():
        try:
            found = await attempt()
        except passing as error:
            if not waiting:
                begins(what, error)
            waiting = True
            await asyncio.sleep(pause)
        else:
            if waiting:
                ends(what)
            return found
    raise AssertionError("the pauses never end")
