"""RFC 9457 problem documents, and the only conversion from exceptions to them."""

from collections.abc import Mapping, Sequence
from typing import Any

from nats.errors import Error as NatsError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from eventstore.log.store import Unavailable
from eventstore.parking.parking import NotParked
from projections.database import ReadModelsUnavailable
from projections.past.queries import NotReached
from runtime.text.explained import errors_in, explained

Errors = Sequence[tuple[str, str]]
"""Pairs of a field's name in the API, and what is wrong with it."""


class Problem(Exception):
    """An answer that is a problem document. `code` is stable; `detail` says what would help."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Errors = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        if status == 503:
            self.headers.setdefault("Retry-After", "1")

    def document(self, request_id: str) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": f"urn:nebula:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            document["errors"] = [{"field": field, "detail": detail} for field, detail in self.errors]
        return document

    def response(self, request_id: str) -> Response:
        body = to_json(self.document(request_id))
        return Response(body, self.status, self.headers, "application/problem+json")


def invalid_parameter(name: str, detail: str) -> Problem:
    """The refusal of an invalid header or query parameter."""
    return Problem(400, "invalid_parameter", f"{name}: {detail}", [(name, detail)])


#: The statuses with which handlers and nodes may refuse; a refusal with another status is invalid.
PASSED_ON = frozenset({401, 403, 404, 409, 410, 413, 422, 500, 501, 503})
#: Maximum number of errors of one body that are listed.
MOST_ERRORS = 20
LOG_UNAVAILABLE = (
    "the log cannot be reached now, or cannot store (for example because its disk is full); "
    "nothing is lost: try again, with the same Idempotency-Key if you gave one"
)


def of(error: Exception) -> Problem | None:
    """The problem for an exception; None if the exception is a bug."""
    match error:
        case Problem():
            return error
        case ValidationError():
            return invalid_body(error)
        case NotParked():
            return Problem(404, "parked_not_found", f"no message is parked as {error}", [("key", "not found")])
        case NotReached():
            return Problem(503, "position_not_reached", f"{error}; try again")
        case ReadModelsUnavailable():
            return Problem(503, "read_models_unavailable", "the read models cannot be queried now; try again")
        case Unavailable() | NatsError():
            return Problem(503, "log_unavailable", LOG_UNAVAILABLE)
        case HTTPException(status_code=404):
            return Problem(404, "no_such_route", "there is no call at this path; see /v1/openapi.json")
        case HTTPException():
            return Problem(error.status_code, "http_error", error.detail)
        case _:
            return None


def invalid_body(error: ValidationError) -> Problem:
    """The refusal of an invalid body, with each wrong field."""
    found = errors_in(error)
    if any(each["type"] == "json_invalid" for each in found):
        why = found[0].get("ctx", {}).get("error", "it cannot be parsed")
        return Problem(400, "invalid_json", f"the body is not JSON: {why}")
    shown = found[:MOST_ERRORS]
    errors = [(".".join(map(str, each["loc"]))[:200] or "(body)", explained(each)) for each in shown]
    detail = "; ".join(f"{field}: {text}" for field, text in errors)
    if len(found) > len(shown):
        detail += f"; and {len(found) - len(shown)} more"
    return Problem(422, "invalid_request", detail, errors)


def method_not_allowed(methods: Sequence[str]) -> Problem:
    offered = ", ".join(methods)
    return Problem(405, "method_not_allowed", f"this path accepts {offered}", headers={"Allow": offered})
