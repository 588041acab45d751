"""A refused call, or what a server of the bus has refused: what auditors see."""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


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
