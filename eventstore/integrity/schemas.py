"""What others need to read the log without our code: JSON Schema for each type of event, and an AsyncAPI document.

All of it is generated from the classes. `docs/schemas/` holds the result, `nebula schemas DIR` writes it anywhere.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from domain.base import Event
from domain.contract import (
    CommandRequest,
    Heartbeat,
    LeaseNote,
    NodeReport,
    Question,
    RefusedDocument,
    RoleStatus,
    Wanted,
)
from eventstore.integrity.checkpoints import Checkpoint
from eventstore.log.upcast import TYPE_VERSION, all_types
from eventstore.parking.parking import Parked
from runtime import subjects

Document = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ASYNCAPI = "asyncapi.json"

_HEX = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def event_schema(topic: str, kind: type[Event]) -> Document:
    """The schema of an event's body. Members that are null are left out; readers ignore those they do not know."""
    return {"$schema": DIALECT, "$id": file_name(topic), **_schema(kind), "x-version": kind.VERSION}


def file_name(topic: str) -> str:
    return f"{topic}.json"


def headers_schema() -> Document:
    """The headers of every event: CloudEvents 1.0 in the binary mode of its NATS binding."""
    required: Document = {
        "ce-specversion": {"const": "1.0"},
        "ce-id": _text("<kind>.<aggregate id>:<version>; unique in the whole log"),
        "ce-type": _text("the wire name of the type, for ever; new types may appear at any time"),
        "ce-source": _text("/projects/<project>/<kind>s/<id>: the aggregate"),
        "ce-time": {"type": "string", "format": "date-time", "description": "when it was decided"},
        "ce-aggregateversion": {
            "type": "string",
            "pattern": "^[1-9][0-9]*$",
            "description": "counts the aggregate's events from 1, without a gap",
        },
        "ce-actor": _text("who caused it"),
        "ce-prevhash": {**_HEX, "description": "digest of the aggregate's event before; 64 zeros in the first"},
        "content-type": {"const": "application/json"},
    }
    optional: Document = {
        TYPE_VERSION: _text("version of the type that the body is written in; 1 where it is missing"),
        "ce-credential": _text("the credential that was used: an HMAC of what tells it from others"),
        "ce-requestid": _text("the HTTP request"),
        "ce-operationid": _text("the operation that it belongs to"),
        "ce-causationid": _text("the ce-id of the event that it answers"),
        "ce-traceparent": _text("W3C trace context"),
        "Nebula-Stored-At": _text("in a restored log: when it was stored at first, RFC 3339"),
    }
    return {
        "$schema": DIALECT,
        "title": "Headers of an event",
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def async_api() -> Document:
    """The AsyncAPI 3.0 document of the bus."""
    types = all_types()
    messages: Document = {topic: _event_message(topic, kind) for topic, kind in types.items()}
    messages |= {
        "wanted": _message("Wanted", Wanted, "The whole desired state of one VM on one node; only the newest counts."),
        "report": _message("NodeReport", NodeReport, "What a node sees of one VM."),
        "refused": _message("RefusedDocument", RefusedDocument, "A node does nothing about a document of this kind."),
        "heartbeat": _message("Heartbeat", Heartbeat, "A node lives."),
        "role-status": _message("RoleStatus", RoleStatus, "How a process of gateway, handlers or projections is."),
        "lease": _message("LeaseNote", LeaseNote, "Which daemon was given the lease of a node last."),
        "ask": _message("Question", Question, "A question to one node: docs/command-protocol.md."),
        "piece": {
            "title": "Piece",
            "summary": "A letter, a number of 8 bytes, and bytes of a connection: docs/command-protocol.md.",
            "contentType": "application/octet-stream",
        },
        "checkpoint": _message("Checkpoint", Checkpoint, "What the log held at a position, signed."),
        "parked": _message("Parked", Parked, "A message that was put aside; only the newest counts."),
        "command": _message(
            "CommandRequest",
            CommandRequest,
            "A wish: docs/command-protocol.md. The answer is {ok} or {problem}; no answer: unknown.",
        ),
    }
    channels = {
        "events": _channel(
            _address(subjects.events(), "project", "kind", "id"),
            list(types),
            f"The log of record (stream {subjects.EVENTS}). Its order is that of the stream's sequence, the position.",
        ),
        "commands": _channel(
            _address(subjects.COMMANDS, "project", "kind", "verb"), ["command"], "Request and reply; not stored."
        ),
        "wanted": _channel(
            _address(subjects.wanted_of(), "node", "kind", "id"), ["wanted"], f"Stream {subjects.WANTED}."
        ),
        "reports": _channel(
            _address(subjects.REPORTS_OF_ALL, "node", "kind", "id"),
            ["report", "refused"],
            f"Stream {subjects.REPORTS}.",
        ),
        "asks": _channel(
            _address(subjects.asks_of(), "node", "verb"), ["ask"], "Request and reply; what a node answers itself."
        ),
        "sessions": _channel(
            _address(subjects.SESSIONS_OF_ALL, "node", "session", "hearer"),
            ["piece"],
            "Not stored. A connection to a guest: each end (node, gateway) hears on its own subject.",
        ),
        "heartbeats": _channel(_address(subjects.HEARTBEATS, "node"), ["heartbeat"], "Not stored."),
        "roles": _channel(_address(subjects.STATUS_OF_ALL, "role", "process"), ["role-status"], "Not stored."),
        "leases": _channel(_address(subjects.LEASES_OF_ALL, "node"), ["lease"], f"Stream {subjects.LEASES}."),
        "parked": _channel(_address(subjects.PARKED_OF_ALL, "source", "key"), ["parked"], f"Stream {subjects.PARKED}."),
        "checkpoints": _channel(subjects.CHECKPOINT, ["checkpoint"], f"Stream {subjects.CHECKPOINTS}."),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Nebula on NATS",
            "version": "1",
            "description": "Subjects, headers and bodies. Additions are no new version: ignore what you do not know.",
        },
        "defaultContentType": "application/json",
        "servers": {"nats": {"host": "127.0.0.1:4222", "protocol": "nats"}},
        "channels": channels,
        "operations": {name: _operation(name) for name in channels},
        "components": {
            "messages": messages,
            "messageTraits": {"cloudEvent": {"headers": headers_schema()}},
        },
    }


def documents() -> dict[str, Document]:
    """Every generated file by its name."""
    found = {file_name(topic): event_schema(topic, kind) for topic, kind in all_types().items()}
    return {**found, "headers.json": headers_schema(), ASYNCAPI: async_api()}


def text_of(document: Document) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> list[str]:
    """Write every document, remove schemas of types that are gone; the names of the files that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: text_of(document) for name, document in documents().items()}
    changed = []
    for name, text in wanted.items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            changed.append(name)
    for file in folder.glob("nebula.*.json"):
        if file.name not in wanted:
            file.unlink()
            changed.append(file.name)
    return changed


def _schema(kind: type[BaseModel]) -> Document:
    return kind.model_json_schema(mode="validation")


def _text(description: str) -> Document:
    return {"type": "string", "description": description}


def _event_message(topic: str, kind: type[Event]) -> Document:
    return {
        "name": topic,
        "title": kind.__name__,
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "payload": {"schemaFormat": f"application/schema+json;version={DIALECT}", "schema": {"$ref": file_name(topic)}},
    }


def _message(title: str, kind: type[BaseModel], summary: str) -> Document:
    schema = {"$schema": DIALECT, **_schema(kind)}
    return {
        "title": title,
        "summary": summary,
        "payload": {"schemaFormat": f"application/schema+json;version={DIALECT}", "schema": schema},
    }


def _address(filter_: str, *names: str) -> str:
    """The subjects that a filter matches, with a name for each `*`."""
    for name in names:
        filter_ = filter_.replace("*", f"{{{name}}}", 1)
    return filter_


def _channel(address: str, messages: list[str], description: str) -> Document:
    names = [part.split("}")[0] for part in address.split("{")[1:]]
    return {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        **({"parameters": {name: {} for name in names}} if names else {}),
    }


def _operation(channel: str) -> Document:
    """From the side of somebody who uses the platform: commands are sent, everything else is received."""
    if channel == "commands":
        return {"action": "send", "channel": {"$ref": "#/channels/commands"}, "reply": {}}
    return {"action": "receive", "channel": {"$ref": f"#/channels/{channel}"}}
