"""Answers on the bus: `{"ok": {…}}` or `{"problem": {…}}`. They are read totally: nonsense is a case of its own."""

from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json, to_json

from runtime.text.explained import explained

Said = dict[str, JsonValue]
"""What an answer says: JSON, which whoever asked has to judge."""

_decode = msgspec.json.Decoder[Any]().decode

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


def accepted(said: object, without: dict[str, Any] | None = None) -> bytes:
    """The answer that says this. `without`: what is left out of the whole answer, as pydantic's `exclude`."""
    return to_json({"ok": said}, exclude=without)


def refused(refusal: Refusal) -> bytes:
    """The answer that refuses."""
    return to_json({"problem": refusal})


def malformed(error: ValidationError) -> Refusal:
    """What is told to who sent something else than what is asked for: the first thing that is wrong with it."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])[:200]
    text = explained(first)
    detail = f"{field}: {text}" if field else text
    return Refusal.model_construct(code="invalid_request", status=422, detail=detail[:MOST_DETAIL], field=field or None)


def read(body: bytes) -> Said | Refusal:
    """What the answer says under `ok`, or the refusal. Raises Nonsense."""
    try:
        said = _json(body)
    except ValueError as error:
        raise Nonsense(f"the answer is no JSON: {str(error)[:200]}") from None
    if not isinstance(said, dict):
        raise Nonsense("the answer is no JSON object")
    if said.get("problem") is not None:
        return _refusal(said["problem"])
    ok = said.get("ok")
    if not isinstance(ok, dict):
        raise Nonsense("it says neither `ok` nor `problem`")
    return ok


def _json(body: bytes) -> Any:
    """What a body says. NaN and numbers without bound are let through: each field is judged by whoever reads it."""
    try:
        return _decode(body)
    except (ValueError, RecursionError):
        return from_json(body)


def _refusal(said: object) -> Refusal:
    try:
        return Refusal.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(["problem", *map(str, first["loc"])])[:80]
        raise Nonsense(f"{where}: {explained(first)[:200]}") from None
