"""The words of events: each type has them, and values of others stay plain text."""

from typing import Any

import pytest
from pydantic import BaseModel

from domain import idempotency, maintenance
from domain.base import Event, event_types
from domain.kinds import KINDS
from gateway.words import sentences
from gateway.words.fields import LONGEST

#: All modules with events are loaded.
LOADED = (idempotency, maintenance, KINDS)
KNOWN = [(topic, cls) for topic, cls in event_types() if cls.__module__.startswith("domain.")]
TYPES = {topic.rpartition(".")[2]: cls for topic, cls in KNOWN}


def test_each_type_has_words() -> None:
    assert all(LOADED)
    assert sorted(set(TYPES) - set(sentences.WORDS)) == [], "add a line to gateway/words/sentences.py"
    assert sorted(set(sentences.WORDS) - set(TYPES)) == [], "no event has this type"
    assert len(TYPES) == len(KNOWN), "two types have the same name"


def fields_of(cls: Any) -> dict[str, Any]:
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        return {name: field.annotation for name, field in cls.model_fields.items()}
    return {name: field.type for name, field in getattr(cls, "__dataclass_fields__", {}).items()}


@pytest.mark.parametrize("name", sorted(TYPES))
def test_the_values_in_words_are_fields_of_the_event(name: str) -> None:
    cls: type[Event] = TYPES[name]
    templates = sentences.WORDS[name]
    assert sentences.holes(templates[-1]) == [], "the last template needs no values"
    for path in (hole for template in templates for hole in sentences.holes(template)):
        found: Any = cls
        for part in path.split("."):
            assert part in fields_of(found), f"{name} has no {path}"
            found = fields_of(found)[part]


@pytest.mark.parametrize("name", sorted(TYPES))
def test_words_need_no_data_and_trust_none(name: str) -> None:
    strange: list[object] = [None, [], "x", 5, {}, {"spec": 5, "cause": [], "step": {}, "forced": 1, "labels": {}}]
    for data in strange:
        said = sentences.sentence(name, data)
        assert said and "{" not in said and said[0].isupper()
    hostile = "\x1b[31m\u202e<script>\n" + "x" * 5 * LONGEST
    fields = {hole: hostile for template in sentences.WORDS[name] for hole in sentences.holes(template)}
    said = sentences.sentence(name, {**fields, "node": hostile, "cause": hostile, "step": hostile})
    assert said is not None and said.isprintable()
    assert len(said) < 4 * LONGEST


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("VmStopped", {"cause": "crashed"}, "The guest crashed"),
        ("VmStopped", {"cause": "requested", "forced": True}, "VM powered off without a shutdown"),
        ("VmStopped", {"cause": "of a later version"}, "VM stopped"),
        ("VmPreparing", {"node": "n1", "step": "image"}, "Node n1 prepares the VM: it makes the disk from the image"),
        ("VmPreparing", {"node": "n1", "step": "of a later version"}, "Node n1 prepares the VM"),
        (
            "VmResized",
            {"spec": {"vcpus": 2, "memory_mib": 512, "disk_gib": 4}},
            "VM resized to 2 vCPUs, 512 MiB of memory, 4 GiB of disk",
        ),
        ("VmChanged", {"labels": {}, "protected": False}, "VM changed: labels, protected"),
        ("VmAddressesChanged", {"addresses": ["10.0.0.1", "fd00::1"]}, "The guest has the addresses 10.0.0.1, fd00::1"),
        ("VmAddressesChanged", {"addresses": []}, "The guest has no address"),
        ("ProjectTagged", {"tags": []}, "All tags of the project removed"),
        ("NoSuchType", {}, None),
    ],
)
def test_what_words_say(name: str, data: object, said: str | None) -> None:
    assert sentences.sentence(name, data) == said
