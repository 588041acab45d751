"""Waiting for a server that does not answer yet. The begin and the end of the wait are logged; pauses grow."""

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

#: Errors that end once a NATS server answers, has a leader, and has room.
PASSING: tuple[type[Exception], ...] = (NatsError, OSError, TimeoutError)


class CannotRun(Exception):
    """A failure that waiting does not end: a refused password, a stream that is too weak. The text
    says what to change.
    """


def one_line(error: Exception) -> str:
    """The message of an error on one line, without credentials."""
    return masked(" ".join(str(error).split()) or repr(error))


def log_waiting(what: str, error: Exception) -> None:
    """Log the begin of a wait."""
    log.warning("waiting for a server", what=what, error=one_line(error))


def log_answers(what: str) -> None:
    """Log the end of a wait."""
    log.warning("the server answers", what=what)


async def patiently(
    what: str,
    attempt: Callable[[], Awaitable[T]],
    passing: tuple[type[Exception], ...] = PASSING,
    *,
    begins: Callable[[str, Exception], None] = log_waiting,
    ends: Callable[[str], None] = log_answers,
) -> T:
    """Repeat `attempt` until it succeeds, and return its result. Only errors of the types `passing` are retried.

    `begins`, `ends`: called at the begin and the end of a wait.
    """
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
