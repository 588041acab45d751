"""What is done to the streams with a credential of their account, which is to be recorded: the message to handlers."""

from typing import Annotated

from nats.aio.client import Client
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from runtime import subjects
from runtime.bus import requests
from runtime.bus.accounts.table import MAINTAINED
from runtime.bus.replies import Result
from runtime.bus.requests import Patience

PATIENCE = Patience(one_try=5.0)
Line = Annotated[str, Field(max_length=512)]


class Maintained(BaseModel):
    """A call of JetStream that changes something, as the servers tell.

    `id`: of the record, the same if it is sent again. `role`: the name of the credential; `credential`: its public key.
    `count`: the number of equal calls.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    id: Annotated[str, Field(pattern=f"^{subjects.UUID}$")]
    at: AwareDatetime
    role: Line
    call: Line
    target: Line
    credential: Line
    address: Line
    request: Line = ""
    refused: Line | None = None
    count: Annotated[int, Field(ge=1, le=2**53)] = 1


async def record(nc: Client, what: Maintained) -> None:
    """Have handlers record it in the log. Raises Unanswered, requests.Refused, InvalidReply."""

    def nothing(_: Result) -> None:
        return

    await requests.request(nc, MAINTAINED, what.model_dump_json(exclude_none=True).encode(), PATIENCE, nothing)
