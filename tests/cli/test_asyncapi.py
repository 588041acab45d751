"""What is published about the bus: all of it, as AsyncAPI wants it, and current."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from cli import asyncapi
from cli.asyncapi import Incomplete, Travels, async_api, channels, documents
from domain.contract import LeaseNote
from eventstore.integrity.schemas import text_of, write
from eventstore.log.upcast import all_types
from handlers.commands import preview
from handlers.commands.routes import ROUTES
from runtime import subjects
from runtime.bus import streams

DOCS = Path(__file__).parents[2] / "docs" / "schemas"
SPECIFICATION = Path(__file__).parent / "asyncapi-3.0.0.json"


def test_generated_files_are_current() -> None:
    """When this fails: `nebula schemas docs/schemas`."""
    expected = {name: text_of(document) for name, document in documents().items()}
    assert {file.name: file.read_text() for file in DOCS.glob("*.json")} == expected


def test_the_document_is_asyncapi() -> None:
    """By the schema that the authors of AsyncAPI publish."""
    validator = jsonschema_rs.Draft7Validator(json.loads(SPECIFICATION.read_text()))
    assert [(error.instance_path, error.message) for error in validator.iter_errors(async_api())] == []
    broken = async_api() | {"channels": {"x": {"address": 5}}}
    assert not validator.is_valid(broken)


def schemas_in(node: Any) -> Iterator[Any]:
    match node:
        case {"schemaFormat": _, "schema": schema}:
            yield schema
        case dict():
            for value in node.values():
                yield from schemas_in(value)


def test_every_payload_is_a_json_schema() -> None:
    found = [*schemas_in(async_api()), *(one for name, one in documents().items() if name != asyncapi.ASYNCAPI)]
    assert len(found) > 2 * len(all_types())
    for schema in found:
        jsonschema_rs.meta.validate(schema)


def test_every_reference_leads_somewhere() -> None:
    document = async_api()

    def check(node: Any, root: Any) -> None:
        match node:
            case {"$ref": str(target)} if target.startswith("#/"):
                found = root
                for part in target[2:].split("/"):
                    found = found[part]
            case {"$ref": str(target)}:
                assert (DOCS / target).exists(), target
            case {"$schema": _, **rest} if node is not root:
                check(rest, rest)
            case dict():
                for value in node.values():
                    check(value, root)
            case list():
                for value in node:
                    check(value, root)

    check(document, document)


def test_every_stream_and_every_type_is_there() -> None:
    known = {channel.filter: channel for channel in channels()}
    for stream in streams.platform_streams(1):
        for subject in stream.subjects or ():
            assert subject in known, stream.name
            assert f"Stream {stream.name}" in asyncapi.stored(known[subject])
    document = async_api()
    assert set(all_types()) == set(document["channels"]["event"]["messages"])
    assert document["channels"]["event"]["address"] == "nebula.events.{project}.{kind}.{id}"
    verbs = document["channels"]["command"]["parameters"]["verb"]["enum"]
    assert {verb for _, verb in ROUTES} | {preview.VERB} == set(verbs)
    assert f"command.{preview.KIND}.{preview.VERB}" in document["operations"]
    assert {f"command.{kind}.{verb}" for kind, verb in ROUTES} <= document["operations"].keys()
    assert document["operations"]["register"]["reply"] == {"channel": {"$ref": "#/channels/register.reply"}}


def test_no_two_messages_have_one_name() -> None:
    kinds = {kind for channel in channels() for kind in (*channel.travels.types, *channel.travels.answers)}
    named = [asyncapi.message_name(kind, "c") for kind in kinds if kind is not bytes]
    assert [name for name, times in Counter(named).items() if times > 1] == []


def test_a_subject_without_a_type_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def webhook(name: str) -> str:
        return f"nebula.webhooks.{name}"

    webhook.__module__ = subjects.__name__
    monkeypatch.setattr(subjects, "webhook", webhook, raising=False)
    with pytest.raises(Incomplete, match="webhook"):
        async_api()
    monkeypatch.setattr(asyncapi, "TRAVELS", {**asyncapi.TRAVELS, webhook: Travels((LeaseNote,))})
    assert async_api()["channels"]["webhook"]["address"] == "nebula.webhooks.{name}"


def test_a_subject_that_is_gone_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subjects, "heartbeat")
    with pytest.raises(Incomplete, match="heartbeat"):
        async_api()


def test_a_fixed_subject_without_a_type_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "NEWS", "nebula.news", raising=False)
    with pytest.raises(Incomplete, match=r"nebula\.news"):
        async_api()


def test_written_where_asked(tmp_path: Path) -> None:
    (tmp_path / "nebula.gone.Type.json").write_text("{}")
    assert "nebula.gone.Type.json" in write(tmp_path, documents())
    assert write(tmp_path, documents()) == []
    schema = json.loads((tmp_path / "nebula.vm.VmRequested.json").read_text())
    assert schema["$id"] == "nebula.vm.VmRequested.json"
    assert "name" in schema["required"]
