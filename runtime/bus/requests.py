"""Asking on the bus: one request, and its answer as it came, or why there is none.

Whoever asks says how long (`Patience`). Only what is safe to be asked again is: a request whose answer was lost may
have been carried out. What an answer says is read by `replies.read`, or by the reader of the question.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError, NoRespondersError
from pydantic import ValidationError

from runtime.bus import replies
from runtime.bus.malformed import reason
from runtime.bus.replies import Nonsense, Refusal, Said

T = TypeVar("T")

#: Seconds between two tries while nobody is there.
PAUSE = 0.1


class Unanswered(Exception):
    """No answer came: the bus is away. What was asked may have been done all the same."""


class Silent(Unanswered):
    """Somebody was asked, and did not answer in time."""


class NobodyThere(Unanswered):
    """Nobody hears this subject now. Nothing was done."""


class Refused(Exception):
    """The answer is a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code}: {refusal.detail}")
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. `one_try`: in which an answer to one try is awaited. `in_all`: in which a request is tried again.

    `nobody`: in which somebody has to be there to answer at all. 0: it is asked once.
    """

    one_try: float
    in_all: float = 0.0
    nobody: float = 0.0


async def ask(nc: Client, subject: str, body: bytes, patience: Patience) -> Msg:
    """The answer as it came. Raises Unanswered."""
    clock = asyncio.get_running_loop().time
    started = clock()
    while True:
        passed = clock() - started
        wait = min(patience.one_try, patience.in_all - passed) if patience.in_all else patience.one_try
        try:
            return await nc.request(subject, body, timeout=wait)
        except NoRespondersError as error:
            if passed >= patience.nobody:
                raise NobodyThere(subject) from error
            await asyncio.sleep(PAUSE)
        except TimeoutError as error:
            if passed + patience.one_try >= patience.in_all:
                raise Silent(subject) from error
        except (NatsError, OSError) as error:
            raise Unanswered(str(error) or repr(error)) from error


async def asked(nc: Client, subject: str, body: bytes, patience: Patience, read: Callable[[Said], T]) -> T:
    """What the answer says, read by `read`. Raises Unanswered; Refused; and Nonsense, also for a ValidationError."""
    said = replies.read((await ask(nc, subject, body, patience)).data)
    if isinstance(said, Refusal):
        raise Refused(said)
    try:
        return read(said)
    except ValidationError as error:
        raise Nonsense(reason(error)) from error
