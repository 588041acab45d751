"""The API's description for programs, made from the tables and models that the gateway itself uses.

Parameters and headers are in `described.py`, refusals in `statuses.py`.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from domain.access import OPEN
from gateway.access.auth import MORE_WITH_TOKEN
from gateway.commands import bodies, tokens
from gateway.commands.accepted import VIEWS
from gateway.commands.actions import Action
from gateway.openapi import described, statuses
from gateway.openapi.statuses import SCHEMAS, refusals
from gateway.reads.read import Read
from projections.operation_rows import OperationView
from projections.pages import MOST
from runtime.token_text import TOKEN


def document(reads: Iterable[Read], actions: Iterable[Action]) -> bytes:
    """The OpenAPI 3.1 document, as JSON."""
    schemas: dict[str, Any] = {"Problem": statuses.PROBLEM}
    paths: dict[str, dict[str, Any]] = {}
    for read in reads:
        paths.setdefault(read.path, {})[read.method.lower()] = described_read(read, schemas)
    for action in actions:
        paths.setdefault(action.path, {})[action.method.lower()] = described_action(action, schemas)
    return to_json(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Nebula",
                "version": "1",
                "description": "A private cloud on an event log. Every path with GET also answers HEAD.",
            },
            "paths": paths,
            "components": {
                "schemas": schemas,
                "responses": statuses.components(),
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"token": []}, {}],
        }
    )


def described_read(read: Read, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    headers = described.ANSWERED if read.permission != OPEN else {**described.ECHOED, **statuses.KNOWN_CALLERS}
    feed = read.path.endswith("/feed")
    if feed:
        content = {"text/event-stream": {"schema": {"type": "string"}}}
    elif read.answer is str:
        content = {"text/plain": {"schema": {"type": "string"}}}
        headers = described.OF_A_CONSOLE if "cursor" in read.parameters else headers
    elif read.answer is not None:
        item = schema(read.answer, schemas)
        content = {"application/json": {"schema": page(item) if read.listed else item}}
    in_query = [described.in_query(read.path, name) for name in read.parameters]
    parameters = [*described.in_path(read.path), *in_query, described.REQUEST_ID]
    if feed:
        parameters.append(described.LAST_EVENT_ID)
    operation: dict[str, Any] = {
        "summary": read.summary,
        "description": statuses.needs(read.permission),
        "operationId": name_of(read.method.lower(), read.path),
        "x-permission": read.permission,
        "parameters": parameters,
        "responses": refusals(statuses.of_a_read(read.path, read.permission, read.method, read.statuses)),
    }
    if read.redirects:
        operation["responses"]["302"] = {
            "description": "another page: at the issuer, or of the console",
            "headers": {**described.ECHOED, "Location": described.header({"type": "string"}, "its address")},
        }
    elif 426 not in read.statuses:
        operation["responses"]["200"] = {
            "description": "the requested resource",
            "headers": headers,
            "content": content,
        }
    else:
        operation["responses"]["101"] = {"description": "the WebSocket is open"}
    if read.unavailable is not None:
        operation["responses"]["503"] = {
            "description": "the platform is unavailable; the body names the parts that do not work",
            "headers": {**headers, **statuses.HEADERS[503]},
            "content": {"application/json": {"schema": schema(read.unavailable, schemas)}},
        }
    if read.permission == OPEN:
        operation["security"] = [{}, {"token": []}] if read.path in MORE_WITH_TOKEN else []
    if read.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema(read.body, schemas)}},
        }
    return operation


SECRET = {
    "secret": {
        "type": ["string", "null"],
        "pattern": f"^{TOKEN.pattern}$",
        "description": "the token; null in answers to repeats after ten minutes",
    },
    "secret_withheld": {"type": ["string", "null"], "description": "why `secret` is null"},
}
"""What the answer to the issue of a token has in addition."""


def described_action(action: Action, schemas: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "type": "object",
        "required": ["operation", action.kind, "position"],
        "properties": {
            "operation": schema(OperationView, schemas),
            action.kind: schema(VIEWS[action.kind], schemas),
            "position": described.POSITION,
        },
    }
    if tokens.issues(action):
        answer["required"] = [*answer["required"], *SECRET]
        answer["properties"] = {**answer["properties"], **SECRET}
    done = {"headers": described.OF_A_COMMAND, "content": {"application/json": {"schema": answer}}}
    operation: dict[str, Any] = {
        "summary": action.summary,
        "description": statuses.needs(action.permission),
        "operationId": f"{action.kind}_{action.verb}",
        "x-permission": action.permission,
        "parameters": [
            *described.in_path(action.path),
            described.in_query(action.path, "wait"),
            described.IDEMPOTENCY_KEY,
            described.REQUEST_ID,
        ],
        "responses": {
            "202": {"description": "accepted", **done},
            "200": {"description": "the operation has ended within `wait`", **done},
            **refusals((*statuses.ALWAYS, 401, *statuses.OF_A_COMMAND)),
        },
    }
    if action.body is not bodies.Body:
        body = {"application/json": {"schema": schema(action.body, schemas)}}
        operation["requestBody"] = {"required": not action.body.OPTIONAL, "content": body}
    return operation


def schema(model: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a model. The schema and all schemas in it are added to `schemas`.

    Raises TypeError if another model has the same name: one of the two would be described as the other.
    """
    found = TypeAdapter(model).json_schema(ref_template=SCHEMAS + "{model}")
    inside = found.pop("$defs", {})
    name = getattr(model, "__name__", "")
    named = name not in ("", "dict")
    for each, described_as in {**inside, **({name: found} if named else {})}.items():
        if schemas.setdefault(each, described_as) != described_as:
            raise TypeError(f"two models of the API have the name {each}")
    return {"$ref": SCHEMAS + name} if named else found


def page(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["items", "next_page_token", "position"],
        "properties": {
            "items": {"type": "array", "items": item, "maxItems": MOST},
            "next_page_token": {"anyOf": [described.PAGE_TOKEN, {"type": "null"}]},
            "position": described.POSITION,
        },
    }


def name_of(method: str, path: str) -> str:
    parts = [part for part in path.strip("/").split("/") if part and part != "v1"]
    return "_".join([method, *(part.strip("{}").replace(".", "_") for part in parts)])
