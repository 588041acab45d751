"""Refusals and failures as RFC 9457 problem documents: one map from exceptions to answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from nats.errors import Error as NatsError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from eventstore.log.store import Unavailable
from eventstore.parking.parking import Closed, NoRetry, NotParked
from projections.database import Away
from runtime.text.explained import explained

Errors = Sequence[tuple[str, str]]
"""What is wrong with which field, as the API calls it."""


class Problem(Exception):
    """An answer that is not what was asked for. `code` is stable; `detail` says what would help."""

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
        made: dict[str, Any] = {
            "type": f"urn:nebula:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            made["errors"] = [{"field": field, "detail": detail} for field, detail in self.errors]
        return made

    def response(self, request_id: str) -> Response:
        body = to_json(self.document(request_id))
        return Response(body, self.status, self.headers, "application/problem+json")


def invalid_parameter(name: str, detail: str) -> Problem:
    """A header or a query parameter that makes no sense."""
    return Problem(400, "invalid_parameter", f"{name}: {detail}", [(name, detail)])


#: What handlers and nodes may refuse with; a refusal with another status is nonsense.
PASSED_ON = frozenset({404, 409, 410, 413, 422, 500, 501, 503})
#: Errors of one body that are listed.
MOST_ERRORS = 20
LOG_UNAVAILABLE = (
    "the log cannot be reached now, or stores nothing, as when its disk is full; "
    "nothing is lost: try again, with the same Idempotency-Key where you gave one"
)


def of(error: Exception) -> Problem | None:
    """The problem that an exception stands for; None when it is a bug."""
    match error:
        case Problem():
            return error
        case ValidationError():
            return invalid_body(error)
        case NotParked():
            return Problem(404, "parked_not_found", f"no message is parked as {error}", [("key", "not found")])
        case Closed():
            return Problem(409, "parked_closed", f"{error}; it stays so")
        case NoRetry():
            return Problem(409, "parked_not_retried", str(error))
        case Away():
            return Problem(503, "read_models_unavailable", "the read models cannot be asked now; try again")
        case Unavailable() | NatsError():
            return Problem(503, "log_unavailable", LOG_UNAVAILABLE)
        case HTTPException(status_code=404):
            return Problem(404, "no_such_route", "there is nothing at this path; see /v1/openapi.json")
        case HTTPException():
            return Problem(error.status_code, "http_error", error.detail)
        case _:
            return None


def invalid_body(error: ValidationError) -> Problem:
    """What is wrong with a request's body, field by field."""
    found = error.errors(include_url=False, include_input=False)
    if any(each["type"] == "json_invalid" for each in found):
        why = found[0].get("ctx", {}).get("error", "it makes no sense")
        return Problem(400, "invalid_json", f"the body is not JSON: {why}")
    shown = found[:MOST_ERRORS]
    errors = [(".".join(map(str, each["loc"]))[:200] or "(body)", explained(each)) for each in shown]
    detail = "; ".join(f"{field}: {text}" for field, text in errors)
    if len(found) > len(shown):
        detail += f"; and {len(found) - len(shown)} more"
    return Problem(422, "invalid_request", detail, errors)


def method_not_allowed(methods: Sequence[str]) -> Problem:
    offered = ", ".join(methods)
    return Problem(405, "method_not_allowed", f"this path takes {offered}", headers={"Allow": offered})
