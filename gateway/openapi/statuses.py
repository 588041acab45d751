"""The statuses that are not success, as the API's description names them: with which codes, and in which calls."""

from collections.abc import Iterable
from typing import Any

from domain.kind import Scope
from domain.kinds import KINDS
from gateway.access.auth import OPEN
from gateway.openapi.described import ECHOED, POSITION, header, words

SCHEMAS = "#/components/schemas/"
#: A code that rules choose: each says what stands in the way, and `detail` what helps.
ANY_CODE = r"^[a-z][a-z0-9_]{0,63}$"

#: What is wrong, and the codes, where they are counted; rules have more of them than can be listed.
MEANING: dict[int, tuple[str, tuple[str, ...]]] = {
    400: (
        "the request makes no sense: a parameter, a header, or a body that is no JSON",
        ("invalid_parameter", "invalid_json", "duplicate_name", "incomplete_body", "malformed_request"),
    ),
    401: ("there is no token, or none that is known", ("unauthorized",)),
    403: ("not meant for this gateway", ("foreign_origin",)),
    404: ("there is nothing of this name", ()),
    405: ("the path does not take this method", ("method_not_allowed",)),
    408: ("the request took too long to come", ("request_timeout",)),
    409: ("the state does not allow it, now", ()),
    410: ("it was deleted", ()),
    411: ("HTTP/1.0 has to say how long a body is", ("length_required",)),
    413: ("the request is too large", ("body_too_large", "request_too_large")),
    414: ("the target is too long", ("target_too_long",)),
    415: ("the body is of another type", ("unsupported_media_type", "unsupported_content_encoding")),
    417: ("Expect can only be 100-continue", ("expectation_failed",)),
    422: ("the body, or what it refers to, is wrong in a field", ()),
    426: ("this is a WebSocket", ("upgrade_required",)),
    431: ("the headers are too large", ("headers_too_large",)),
    500: ("a bug in Nebula", ()),
    501: (
        "Transfer-Encoding is not chunked, or the node is too old for the question",
        ("unsupported_transfer_encoding", "unknown_question"),
    ),
    502: (
        "what had to be asked answered nonsense, or failed",
        ("handlers_answer_invalid", "node_answer_invalid", "node_error"),
    ),
    503: ("something that is needed does not answer now; try again", ()),
    505: ("another version of HTTP", ("unsupported_version",)),
}
#: What may be answered to any call; the listener says most of it before the API is asked.
ALWAYS = (400, 403, 405, 408, 411, 413, 414, 417, 431, 500, 501, 503, 505)
#: What a command may be refused with, besides.
OF_A_COMMAND = (404, 409, 410, 415, 422, 502)
#: What a question to a node may be refused with, besides.
OF_A_QUESTION = (404, 409, 410, 422, 502)
#: The same for a WebSocket; a call that asks for none is told to.
OF_A_WEBSOCKET = (*OF_A_QUESTION, 426)
#: Ends of paths that name a resource: one that was deleted is known as such, and so is the project of a list.
_REMEMBERED = (
    *(f"{{{kind}}}" for kind in KINDS),
    *(f"/{{project}}/{kind.plural}" for kind in KINDS.values() if kind.scope is Scope.PROJECT),
)


def of_a_read(path: str, method: str, more: tuple[int, ...]) -> frozenset[int]:
    """What may be answered to a read instead of what it reads."""
    found = {*ALWAYS, *more}
    if path not in OPEN:
        found.add(401)
    if "{" in path:
        found.add(404)
    if path.endswith(_REMEMBERED):
        found.add(410)
    if method == "POST":
        found |= {415, 422}
    return frozenset(found)


HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": header(words(("Bearer",)), "what has to be sent")},
    405: {"Allow": header({"type": "string"}, "the methods that the path takes")},
    426: {"Upgrade": header(words(("websocket",)), "what has to be asked for")},
    503: {"Retry-After": header({"type": "string", "pattern": "^[0-9]+$"}, "seconds")},
}
BEHIND = {
    "Nebula-Position": header(POSITION, "the log position of the read models; not from the listener", always=False)
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
        "headers": {**ECHOED, **BEHIND, **HEADERS.get(status, {})},
        "content": {"application/problem+json": {"schema": schema}},
    }


def refusals(statuses: Iterable[int]) -> dict[str, Any]:
    """The responses of a call that may be refused in these ways."""
    return {str(status): {"$ref": f"#/components/responses/{name(status)}"} for status in sorted(set(statuses))}
