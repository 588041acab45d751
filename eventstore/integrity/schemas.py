"""JSON Schemas of all event types and of their headers, so that other programs can read the log.

They are generated from the classes. `docs/schemas/` has the result; `nebula schemas DIR` writes it to another folder.
The AsyncAPI document describes all other messages on the bus (`cli/asyncapi.py`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domain.base import Event
from domain.patterns import SHA256
from eventstore.log.macs import MAC
from eventstore.log.upcast import TYPE_VERSION, all_types

Document = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_HEX = {"type": "string", "pattern": f"^{SHA256}$"}


def event_schema(topic: str, kind: type[Event]) -> Document:
    """The schema of an event's body. Members that are null are left out; readers ignore unknown members."""
    return {
        "$schema": DIALECT,
        "$id": file_name(topic),
        **kind.model_json_schema(mode="validation"),
        "x-version": kind.VERSION,
    }


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
        TYPE_VERSION: _text("version of the type that the body is written in; 1 if it is missing"),
        "ce-credential": _text("the credential that was used: an HMAC of what tells it from others"),
        "ce-requestid": _text("the HTTP request"),
        "ce-operationid": _text("the operation that it belongs to"),
        "ce-causationid": _text("the ce-id of the event that it answers"),
        "ce-traceparent": _text("W3C trace context"),
        MAC: {
            "type": "string",
            "pattern": "^[0-9a-f]{8}:[0-9a-f]{32}$",
            "description": "proof that handlers wrote it: key id and HMAC of the event's digest; only events that "
            "are older than the first key lack it",
        },
        "Nebula-Stored-At": _text("in a restored log: when it was stored at first, RFC 3339"),
    }
    return {
        "$schema": DIALECT,
        "title": "Headers of an event",
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def documents() -> dict[str, Document]:
    """All generated files by name."""
    found = {file_name(topic): event_schema(topic, kind) for topic, kind in all_types().items()}
    return {**found, "headers.json": headers_schema()}


def text_of(document: Document) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path, documents: Mapping[str, Document]) -> list[str]:
    """Write the documents, and delete schemas of types that no longer exist. Returns the names of changed files."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: text_of(document) for name, document in documents.items()}
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


def _text(description: str) -> Document:
    return {"type": "string", "description": description}
