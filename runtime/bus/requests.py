"""Requests on the bus: send one, and return its answer or the reason why there is none.

The caller states how long to wait (`Patience`). Only requests that are safe to repeat may be sent again: if an answer
was lost, the request may have been carried out. The answer to each message counts, also when the request was sent again
meanwhile. `ask` returns the raw answer; `request` parses it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError, NoRespondersError
from pydantic import ValidationError

from runtime.bus import replies
from runtime.bus.malformed import reason
from runtime.bus.pace import Pace, Repeating
from runtime.bus.replies import InvalidReply, Refusal, Result

T = TypeVar("T")

#: Seconds between two tries while no responder is subscribed.
PAUSE = 0.1
#: Seconds to wait for a responder at least: one that changes its credential is away for a moment (`renewed.py`).
AWAY = 0.5


class Unanswered(Exception):
    """No answer came, for example because the bus is disconnected. The request may have been carried out."""


class Silent(Unanswered):
    """A responder exists, but did not answer in time. The request may have been carried out."""


class NobodyThere(Unanswered):
    """No responder is subscribed to this subject. The request was not carried out."""


class Refused(Exception):
    """The answer is a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code}: {refusal.detail}")
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds. `one_try`: to wait for an answer; with `in_all`, until the request is sent again. `in_all`:
    to wait for an answer if the request is safe to repeat; 0: it is sent once only. `nobody`: to wait for a responder,
    AWAY at least.
    """

    one_try: float
    in_all: float = 0.0
    nobody: float = 0.0


async def ask(
    nc: Client,
    subject: str,
    body: bytes,
    patience: Patience,
    headers: dict[str, str] | None = None,
    pace: Pace | None = None,
) -> Msg:
    """Send a request, and return the raw answer. `pace`: when it is sent again, instead of after `one_try`.

    Raises Unanswered.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    pace = pace or Pace(patience.one_try, patience.one_try)
    while True:
        passed = clock() - started
        try:
            if not patience.in_all:
                return await nc.request(subject, body, timeout=patience.one_try, headers=headers)
            repeating = cast(Repeating, nc)  # the connection of each role; isinstance with a protocol is slow
            return await repeating.request_again(subject, body, max(patience.in_all - passed, 0.0), pace, headers)
        except NoRespondersError as error:
            if clock() - started >= max(patience.nobody, AWAY):
                raise NobodyThere(subject) from error
            await asyncio.sleep(PAUSE)
        except TimeoutError as error:
            raise Silent(subject) from error
        except (NatsError, OSError) as error:
            raise Unanswered(str(error) or repr(error)) from error


async def request(nc: Client, subject: str, body: bytes, patience: Patience, read: Callable[[Result], T]) -> T:
    """Send a request, and return its result, converted by `read`.

    Raises Unanswered; Refused; and InvalidReply for a malformed answer, also if `read` raises ValidationError.
    """
    answer = replies.read((await ask(nc, subject, body, patience)).data)
    if isinstance(answer, Refusal):
        raise Refused(answer)
    try:
        return read(answer)
    except ValidationError as error:
        raise InvalidReply(reason(error)) from error
