"""Commands about parked messages: `nebula.commands.system.parked.drop` and `.retry`.

They change no resource, and no event records them: the record of the message says who closed it. Handlers carry them
out, so that no other process needs a right to change documents or to put reports back.
"""

from pydantic import BaseModel, ConfigDict

from domain.access import PARKED_MANAGE
from domain.base import Category, Reason, Rejected
from domain.contract import CommandRequest
from eventstore.parking.parking import Closed, NoRetry, NotParked, Parked, Parking
from handlers.commands.permissions import Permissions
from runtime import subjects

#: The kind and the verbs in the subjects of these commands.
KIND, DROP, RETRY = "parked", "drop", "retry"


class _Named(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    source: str
    key: str


class _Drop(_Named):
    reason: Reason


class ParkedCommands:
    """Closes records of parked messages."""

    def __init__(self, parking: Parking, permissions: Permissions) -> None:
        self._parking = parking
        self._permissions = permissions

    async def handle(self, verb: str, request: CommandRequest) -> Parked:
        """The closed record. Raises Rejected, ValidationError, Unavailable."""
        if verb not in (DROP, RETRY):
            raise Rejected("unknown_command", f"there is no command {KIND}.{verb}", Category.NOT_FOUND)
        await self._permissions.check_cloud(PARKED_MANAGE, request.context)
        actor = request.context.actor
        try:
            if verb == DROP:
                drop = _Drop.model_validate(request.args)
                source, key = named(drop)
                return await self._parking.drop(source, key, actor=actor, reason=drop.reason)
            source, key = named(_Named.model_validate(request.args))
            return await self._parking.retry(source, key, actor=actor)
        except NotParked as error:
            detail = f"no message is parked as {error}"
            raise Rejected("parked_not_found", detail, Category.NOT_FOUND, field="key") from error
        except Closed as error:
            raise Rejected("parked_closed", f"{error}; a closed record cannot change") from error
        except NoRetry as error:
            raise Rejected("parked_not_retried", str(error)) from error


def named(given: _Named) -> tuple[str, str]:
    """The source and the key. Raises NotParked if one is invalid."""
    try:
        return subjects.token(given.source), subjects.token(given.key)
    except ValueError:
        raise NotParked("that") from None
