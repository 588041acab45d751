"""Answers on the bus: `{"ok": {…}}` or `{"problem": {…}}`. Anything else that was received raises InvalidReply."""

from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json, to_json

from runtime.text.explained import errors_in, explained

Result = dict[str, JsonValue]
"""The result in an answer: JSON that the caller has to validate."""

_decode = msgspec.json.Decoder[Any]().decode

#: Maximum number of characters in the detail of a refusal.
MOST_DETAIL = 4000


class InvalidReply(Exception):
    """The answer is malformed. The text says why, without quoting it."""


class Refusal(BaseModel):
    """Why a request is refused: the content of a problem document."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    code: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    status: int = Field(ge=400, le=599)
    detail: str = Field(max_length=MOST_DETAIL)
    field: str | None = Field(default=None, max_length=200)


def accepted(result: object, without: dict[str, Any] | None = None) -> bytes:
    """The answer with this result. `without`: fields to leave out of the whole answer, as pydantic's `exclude`."""
    return to_json({"ok": result}, exclude=without)


def refused(refusal: Refusal) -> bytes:
    """The answer with this refusal."""
    return to_json({"problem": refusal})


def malformed(error: ValidationError) -> Refusal:
    """The refusal of a malformed request, with the first error in it."""
    first = errors_in(error)[0]
    field = ".".join(str(part) for part in first["loc"])[:200]
    text = explained(first)
    detail = f"{field}: {text}" if field else text
    return Refusal.model_construct(code="invalid_request", status=422, detail=detail[:MOST_DETAIL], field=field or None)


def read(body: bytes) -> Result | Refusal:
    """The value of `ok` in an answer, or its refusal. Raises InvalidReply."""
    try:
        answer = _json(body)
    except ValueError as error:
        raise InvalidReply(f"the answer is not JSON: {str(error)[:200]}") from None
    if not isinstance(answer, dict):
        raise InvalidReply("the answer is not a JSON object")
    if answer.get("problem") is not None:
        return _refusal(answer["problem"])
    ok = answer.get("ok")
    if not isinstance(ok, dict):
        raise InvalidReply("the answer has neither `ok` nor `problem`")
    return ok


def _json(body: bytes) -> Any:
    """Parse a body. NaN and huge numbers are accepted here: the reader validates each field."""
    try:
        return _decode(body)
    except (ValueError, RecursionError):
        return from_json(body)


def _refusal(problem: object) -> Refusal:
    try:
        return Refusal.model_validate(problem)
    except ValidationError as error:
        first = errors_in(error)[0]
        where = ".".join(["problem", *map(str, first["loc"])])[:80]
        raise InvalidReply(f"{where}: {explained(first)[:200]}") from None
