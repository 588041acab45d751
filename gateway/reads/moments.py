"""The moment that a read asks for with `at`: a position of the log, or a time, for which its position is looked up."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request

from gateway.http import parameters
from gateway.state import PATIENCE, Gateway
from projections.database import ReadModelsUnavailable
from projections.past import queries
from projections.past.queries import NotReached

#: Clocks of handlers differ by less: later events of the log do not have a time that is so much earlier.
CLOCKS = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class At:
    """A moment. `given`: what the caller gave. `known`: its position, or why the past does not know it now."""

    given: int | datetime
    known: int | ReadModelsUnavailable

    @property
    def position(self) -> int:
        """The greatest position that is not after the moment. Raises ReadModelsUnavailable, or its NotReached."""
        if isinstance(self.known, int):
            return self.known
        raise self.known

    @property
    def bound(self) -> int | datetime:
        """The position, or else the time: for what is read from the log itself."""
        return self.known if isinstance(self.known, int) else self.given


async def asked(gateway: Gateway, request: Request) -> At | None:
    """The moment that a call asks for; None without `at`. It is looked up once for each call."""
    given = parameters.moment(request, "at")
    if given is None:
        return None
    noted = request.scope.get("nebula.at")
    if isinstance(noted, At):
        return noted
    known: int | ReadModelsUnavailable
    try:
        known = given if isinstance(given, int) else await _position_of(gateway, given)
    except ReadModelsUnavailable as error:
        known = error
    at = At(given, known)
    request.scope["nebula.at"] = at
    return at


async def position(gateway: Gateway, request: Request, name: str) -> int | None:
    """The position of another parameter with a moment; None if it is not given.

    Raises ReadModelsUnavailable, NotReached.
    """
    given = parameters.moment(request, name)
    return await _position_of(gateway, given) if isinstance(given, datetime) else given


async def _position_of(gateway: Gateway, time: datetime) -> int:
    end = await gateway.store.last_position()
    newest = await queries.newest(gateway.past.pool)
    if newest is None or newest <= time + CLOCKS:
        await reached(gateway, end)
    return await queries.position_of(gateway.past.pool, time)


async def reached(gateway: Gateway, position: int) -> None:
    """Wait until the past is at a position. Raises NotReached after a time-out, ReadModelsUnavailable."""
    past = gateway.past
    if past.position.value >= position:
        return
    await queries.newest(past.pool)  # raises ReadModelsUnavailable at once where there is no past
    if not await past.position.reach(position, PATIENCE):
        raise NotReached(f"the past is at position {past.position.value}, and not yet at {position}")
