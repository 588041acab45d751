"""The API described to programs, made from the same tables and models that serve it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from gateway import bodies
from gateway.commands import Action
from projections.images import ImageView
from projections.nodes import NodeView
from projections.operation_rows import OperationView
from projections.projects import NamedView, ProjectView
from projections.vms import VmView

if TYPE_CHECKING:
    from gateway.routes import Read

SCHEMAS = "#/components/schemas/"
VIEWS: dict[str, Any] = {
    "project": ProjectView,
    "tag": NamedView,
    "image": ImageView,
    "node": NodeView,
    "vm": VmView,
}
TEXTS = {
    "at": "a log position, or an RFC 3339 time: the resource as it was then",
    "min_position": "wait (at most 5 s) until the answer reflects this log position",
    "label": "`key`, or `key=value`: those that carry such a label",
    "limit": "items on a page, 1 to 500",
    "page_token": "from next_page_token of the page before",
    "bytes": "how many bytes the answer may have, 1 to 8388608 (65536)",
    "cursor": "the header Nebula-Cursor of the answer before: what follows on it",
    "force": "true takes the console away from whoever has it",
    "wait": "seconds to wait at most, such as 30s",
    "after": "a log position: only what came later",
    "ticket": "of POST /v1/tickets, in place of a token: for browsers, which send no Authorization with an EventSource",
    "from": "a log position or a time (events), or now (feeds)",
    "to": "a log position or a time, inclusive",
    "type": "an event type, such as VmStarted",
}
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        **{name: {"type": "string"} for name in ("type", "title", "detail", "code", "request_id")},
        "status": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def document(reads: Iterable["Read"], actions: Iterable[Action]) -> bytes:
    """The OpenAPI 3.1 document, as JSON."""
    schemas: dict[str, Any] = {"Problem": PROBLEM}
    paths: dict[str, dict[str, Any]] = {}
    for read in reads:
        paths.setdefault(read.path, {})[read.method.lower()] = described_read(read, schemas)
    for action in actions:
        paths.setdefault(action.path, {})[action.method.lower()] = described_action(action, schemas)
    return to_json(
        {
            "openapi": "3.1.0",
            "info": {"title": "Nebula", "version": "1", "description": "A private cloud whose log is its truth."},
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"token": []}, {}],
        }
    )


def described_read(read: "Read", schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {}}
    if read.path.endswith("/feed"):
        content = {"text/event-stream": {}}
    elif read.answer is str:
        content = {"text/plain": {}}
    elif read.answer is not None:
        item = schema(read.answer, schemas)
        content = {"application/json": {"schema": page(item) if read.listed else item}}
    made: dict[str, Any] = {
        "summary": read.summary,
        "operationId": name_of(read.method.lower(), read.path),
        "parameters": [*in_path(read.path), *(in_query(name) for name in read.parameters)],
        "responses": {"200": {"description": "as asked", "content": content}, "default": problem()},
    }
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
            "position": {"type": "integer"},
        },
    }
    content = {"application/json": {"schema": answer}}
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}}
    made: dict[str, Any] = {
        "summary": action.summary,
        "operationId": f"{action.kind}_{action.verb}",
        "parameters": [*in_path(action.path), in_query("wait"), key],
        "responses": {
            "202": {"description": "accepted", "content": content},
            "200": {"description": "ended while you waited", "content": content},
            "default": problem(),
        },
    }
    if action.body is not bodies.Body:
        body = {"application/json": {"schema": schema(action.body, schemas)}}
        made["requestBody"] = {"required": action.body not in (bodies.Power, bodies.RebuildVm), "content": body}
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
            "items": {"type": "array", "items": item},
            "next_page_token": {"type": ["string", "null"]},
            "position": {"type": "integer"},
        },
    }


def problem() -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": SCHEMAS + "Problem"}}}
    return {"description": "refused, or failed", "content": content}


def in_path(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def in_query(name: str) -> dict[str, Any]:
    described = {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
    return {**described, "description": TEXTS[name]} if name in TEXTS else described


def name_of(method: str, path: str) -> str:
    parts = [part for part in path.strip("/").split("/") if part and part != "v1"]
    return "_".join([method, *(part.strip("{}").replace(".", "_") for part in parts)])
