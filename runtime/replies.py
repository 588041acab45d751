"""Answers on the bus, read totally: `{"ok": {…}}` or `{"problem": {…}}`, or nonsense, which is a case of its own."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.explained import explained

#: What a refusal may say at most, in characters.
MOST_DETAIL = 4000


class Nonsense(Exception):
    """What came back is no answer. The text says why, without quoting it."""


class Refusal(BaseModel):
    """Why something is refused: a problem document before it becomes one."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    code: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    status: int = Field(ge=400, le=599)
    detail: str = Field(max_length=MOST_DETAIL)
    field: str | None = Field(default=None, max_length=200)


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    ok: dict[str, Any] | None = None
    problem: Refusal | None = None


def read(body: bytes) -> dict[str, Any] | Refusal:
    """What the answer says under `ok`, or the refusal. Raises Nonsense."""
    try:
        reply = _Reply.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:80]
        raise Nonsense(f"{where or 'the answer'}: {explained(first)[:200]}") from None
    if reply.problem is not None:
        return reply.problem
    if reply.ok is None:
        raise Nonsense("it says neither `ok` nor `problem`")
    return reply.ok
