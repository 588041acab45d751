"""The API's description for programs, made from the tables and models that the gateway itself uses.

Parameters and headers are in `described.py`, refusals in `statuses.py`.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from gateway.access.auth import OPEN
from gateway.commands import bodies
from gateway.commands.accepted import VIEWS
from gateway.commands.actions import Action
from gateway.openapi import described, statuses
from gateway.openapi.statuses import SCHEMAS, refusals
from gateway.reads.read import Read
from projections.operation_rows import OperationView
from projections.pages import MOST


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
                "description": "A private cloud whose log is its truth. What answers GET answers HEAD.",
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
    headers = described.ANSWERED
    feed = read.path.endswith("/feed")
    if feed:
        content = {"text/event-stream": {"schema": {"type": "string"}}}
    elif read.answer is str:
        content = {"text/plain": {"schema": {"type": "string"}}}
        headers = described.OF_A_CONSOLE if "cursor" in read.parameters else headers
    elif read.answer is not None:
        item = schema(read.answer, schemas)
        content = {"application/json": {"schema": page(item) if read.listed else item}}
    told = [described.in_query(read.path, name) for name in read.parameters]
    parameters = [*described.in_path(read.path), *told, described.REQUEST_ID]
    if feed:
        parameters.append(described.LAST_EVENT_ID)
    made: dict[str, Any] = {
        "summary": read.summary,
        "operationId": name_of(read.method.lower(), read.path),
        "parameters": parameters,
        "responses": refusals(statuses.of_a_read(read.path, read.method, read.statuses)),
    }
    if 426 not in read.statuses:
        made["responses"]["200"] = {"description": "as asked", "headers": headers, "content": content}
    else:
        made["responses"]["101"] = {"description": "the WebSocket is open"}
    if read.unwell is not None:
        made["responses"]["503"] = {
            "description": "unavailable: what is not, it says",
            "headers": {**headers, **statuses.HEADERS[503]},
            "content": {"application/json": {"schema": schema(read.unwell, schemas)}},
        }
    if read.path in OPEN:
        made["security"] = []
    if read.body is not None:
        made["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema(read.body, schemas)}},
        }
    return made


def described_action(action: Action, schemas: dict[str, Any]) -> dict[str, Any]:
    answer = {
        "type": "object",
        "required": ["operation", action.kind, "position"],
        "properties": {
            "operation": schema(OperationView, schemas),
            action.kind: schema(VIEWS[action.kind], schemas),
            "position": described.POSITION,
        },
    }
    done = {"headers": described.OF_A_COMMAND, "content": {"application/json": {"schema": answer}}}
    made: dict[str, Any] = {
        "summary": action.summary,
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
            "200": {"description": "ended while you waited", **done},
            **refusals((*statuses.ALWAYS, 401, *statuses.OF_A_COMMAND)),
        },
    }
    if action.body is not bodies.Body:
        body = {"application/json": {"schema": schema(action.body, schemas)}}
        made["requestBody"] = {"required": not action.body.OPTIONAL, "content": body}
    return made


def schema(model: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a model, which is added to `schemas` with all it refers to."""
    made = TypeAdapter(model).json_schema(ref_template=SCHEMAS + "{model}")
    schemas.update(made.pop("$defs", {}))
    name = getattr(model, "__name__", "")
    if name in ("", "dict"):
        return made
    schemas[name] = made
    return {"$ref": SCHEMAS + name}


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
