"""A refused call, or what a server of the bus has refused: what auditors see."""

from datetime import datetime
from typing import NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

#: In the place of what differs between refusals that are counted in one record.
OTHERS = "(others)"


class Refusal(BaseModel):
    """A refused call. `credential`: the id of its credential, which may be an invented one if the status is 401.

    For the bus: `credential` is a public key, `method` is PUBLISH, SUBSCRIBE or CONNECT, `path` is the subject, and
    `count` is the number of equal refusals within a second.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    at: AwareDatetime
    status: int = Field(ge=400, le=499)
    code: str = Field(max_length=64)
    address: str = Field(max_length=64)
    credential: str | None = Field(default=None, max_length=512)
    actor: str | None = Field(default=None, max_length=512)
    method: str = Field(max_length=32)
    path: str = Field(max_length=256)
    request: str = Field(max_length=512)
    count: int = Field(default=1, ge=1, le=2**53)


class RefusedGuest(NamedTuple):
    """What a guest was refused, without its time. `credential`: `vm:<id>`, the VM whose secret was used, if known."""

    status: int
    code: str
    address: str
    credential: str | None
    method: str
    path: str

    def others(self) -> "RefusedGuest":
        """What stands for many different refusals."""
        return RefusedGuest(self.status, self.code, OTHERS, None, OTHERS, OTHERS)

    def record(self, at: datetime, count: int) -> bytes:
        """The record of a number of equal refusals."""
        refusal = Refusal(
            at=at,
            status=self.status,
            code=self.code,
            address=self.address[:64],
            credential=self.credential,
            method=self.method[:32],
            path=self.path[:256],
            request="",
            count=count,
        )
        return refusal.model_dump_json(exclude_none=True).encode()
