"""Refusals in the OpenAPI document: statuses, codes, and the calls that may answer them."""

from collections.abc import Iterable
from typing import Any

from domain.access import OPEN, SELF, SELF_EDIT, Permission, least_role
from domain.kind import Scope
from domain.kinds import KINDS
from gateway.access.auth import MORE_WITH_TOKEN
from gateway.openapi.described import ECHOED, POSITION, header, words

SCHEMAS = "#/components/schemas/"
#: A code of a rule: it names the reason, and `detail` says what helps.
ANY_CODE = r"^[a-z][a-z0-9_]{0,63}$"

#: The meaning of a status, and its codes if they are few; rules have too many codes to list.
MEANING: dict[int, tuple[str, tuple[str, ...]]] = {
    400: (
        "the request is invalid: a parameter, a header, or a body that is not JSON",
        ("invalid_parameter", "invalid_json", "duplicate_name", "incomplete_body", "malformed_request"),
    ),
    401: (
        "there is no token, or an unknown one",
        (
            *("unauthorized", "join_token_invalid", "join_token_used", "join_token_expired"),
            *("join_proof_missing", "join_proof_invalid"),
        ),
    ),
    403: (
        "the caller may not do this, or the call is from a web page of another site",
        ("forbidden", "foreign_origin", "csrf_token_missing"),
    ),
    404: ("there is no such path or resource", ()),
    405: ("the path does not accept this method", ("method_not_allowed",)),
    408: ("the request took too long to arrive", ("request_timeout",)),
    409: ("the present state does not allow it", ()),
    410: ("it was deleted", ()),
    411: ("an HTTP/1.0 request with a body needs Content-Length", ("length_required",)),
    413: ("the request is too large", ("body_too_large", "request_too_large")),
    414: ("the target is too long", ("target_too_long",)),
    415: ("the body has an unsupported type or encoding", ("unsupported_media_type", "unsupported_content_encoding")),
    417: ("Expect can only be 100-continue", ("expectation_failed",)),
    421: ("the Host header names another host", ("foreign_host",)),
    422: ("a field of the body, or a resource that it names, is invalid", ()),
    426: ("this is a WebSocket", ("upgrade_required",)),
    429: ("there were too many refused calls from this address, or with this credential", ("too_many_refusals",)),
    431: ("the headers are too large", ("headers_too_large",)),
    500: ("a bug in Nebula", ()),
    501: (
        "Transfer-Encoding is not chunked, or the node is too old for the question",
        ("unsupported_transfer_encoding", "unknown_question"),
    ),
    502: (
        "handlers or the node gave an invalid answer, or failed",
        ("handlers_answer_invalid", "node_answer_invalid", "node_error"),
    ),
    503: ("a part of the platform does not answer now; try again", ()),
    505: ("another version of HTTP", ("unsupported_version",)),
}
#: Statuses of any call; the listener answers most of them, before the API.
ALWAYS = (400, 403, 405, 408, 411, 413, 414, 417, 421, 429, 431, 500, 501, 503, 505)
#: Further statuses of a command.
OF_A_COMMAND = (404, 409, 410, 415, 422, 502)
#: Further statuses of a question to a node.
OF_A_QUESTION = (404, 409, 410, 422, 502)
#: The same for a WebSocket; 426 for a call that is not a WebSocket.
OF_A_WEBSOCKET = (*OF_A_QUESTION, 426)
#: Ends of paths that may answer 410: a deleted resource, or the list of a deleted project.
_REMEMBERED = (
    *(f"{{{kind}}}" for kind in KINDS),
    *(f"/{{project}}/{kind.plural}" for kind in KINDS.values() if kind.scope is Scope.PROJECT),
)


def of_a_read(path: str, permission: Permission, method: str, more: tuple[int, ...]) -> frozenset[int]:
    """The statuses of a read other than success."""
    found = {*ALWAYS, *more}
    if permission != OPEN or path in MORE_WITH_TOKEN:
        found.add(401)
    if "{" in path:
        found.add(404)
    if path.endswith(_REMEMBERED):
        found.add(410)
    if method == "POST":
        found |= {415, 422}
    return frozenset(found)


def needs(permission: Permission) -> str:
    """Who may make a call with this permission, in a sentence."""
    if permission == OPEN:
        return "It needs no token."
    if permission in (SELF, SELF_EDIT):
        return "Every caller with a token may do this."
    return f"It needs the permission `{permission}`, which the role {least_role(permission)} has."


HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": header(words(("Bearer",)), "the authentication that is required")},
    405: {"Allow": header({"type": "string"}, "the methods that the path accepts")},
    426: {"Upgrade": header(words(("websocket",)), "the protocol that is required")},
    429: {"Retry-After": header({"type": "string", "pattern": "^[0-9]+$"}, "seconds")},
    503: {"Retry-After": header({"type": "string", "pattern": "^[0-9]+$"}, "seconds")},
}
KNOWN_CALLERS = {
    "Nebula-Position": header(POSITION, "the log position of the read models; for known callers only", always=False)
}

PROBLEM = {
    "type": "object",
    "description": "RFC 9457. `code` is stable; `detail` is for people; `errors` names fields.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:nebula:problem:[a-z][a-z0-9_]{0,63}$"},
        "title": {"type": "string", "minLength": 1},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "code": {"type": "string", "pattern": ANY_CODE},
        "request_id": {"type": "string", "minLength": 1, "maxLength": 128},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def components() -> dict[str, Any]:
    """The refusals as components, by their name."""
    return {name(status): refusal(status) for status in MEANING}


def name(status: int) -> str:
    return f"Problem{status}"


def refusal(status: int) -> dict[str, Any]:
    text, codes = MEANING[status]
    says: dict[str, Any] = {"status": {"const": status}}
    if codes:
        says["code"] = {"enum": list(codes)}
    schema = {"allOf": [{"$ref": SCHEMAS + "Problem"}, {"properties": says}]}
    return {
        "description": text,
        "headers": {**ECHOED, **KNOWN_CALLERS, **HEADERS.get(status, {})},
        "content": {"application/problem+json": {"schema": schema}},
    }


def refusals(statuses: Iterable[int]) -> dict[str, Any]:
    """The responses of a call that may be refused in these ways."""
    return {str(status): {"$ref": f"#/components/responses/{name(status)}"} for status in sorted(set(statuses))}
