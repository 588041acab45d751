"""What changed about a field, in sentences: each field of each kind says something that a person would say."""

import inspect
import re
import typing
from typing import Any

import pytest

from gateway.words import fields
from gateway.words.of_fields import SENTENCES
from projections.books import TABLES

SIZE = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
#: Fields whose general sentence is what one would say, as they are single values with a name that is a word.
PLAIN = {
    *("id", "name", "project", "phase", "status", "image", "region", "restart_policy", "watchdog", "description"),
    *("created_by", "flavor", "mac", "preparing", "forgotten", "vcpus", "source", "sha256", "sha512", "distribution"),
    *("release", "architecture", "visibility", "format", "size_bytes", "virtual_size_bytes", "firmware", "seed"),
    *("fetch", "virt_type", "agent_version", "vms", "public_key", "fingerprint", "principal", "role"),
    *("created_at",),
}
#: Fields that are null in the past: what only heartbeats or gateways know.
OF_THE_PRESENT = {
    *("malformed_documents", "last_seen", "clock_offset_seconds", "clock_warning", "image_cache", "last_used_at"),
}


def test_each_field_has_a_sentence() -> None:
    for kind, table in TABLES.items():
        view = typing.get_type_hints(table.view)["return"]
        for name in typing.get_type_hints(view):
            known = name in SENTENCES or name in PLAIN or name in OF_THE_PRESENT or name in fields.SILENT
            assert known, f"{kind}.{name}: write a sentence in gateway/words/of_fields.py, or name it here"
    assert not PLAIN & SENTENCES.keys()


@pytest.mark.parametrize(
    ("field", "before", "after", "said"),
    [
        ("phase", "running", "stopped", "phase changed from running to stopped"),
        ("description", None, "a\nb", "description is now a\\nb"),
        ("memory_mib", 512, 1024, "memory changed from 512 MiB to 1024 MiB"),
        ("running_spec", None, SIZE, "its domain runs with: 1 vCPUs, 512 MiB memory, 4 GiB disk"),
        ("running_spec", SIZE, {**SIZE, "vcpus": 2}, "its domain runs with: vCPUs from 1 to 2"),
        ("reserved", SIZE, {**SIZE, "disk_gib": 5}, "promised: disk from 4 GiB to 5 GiB"),
        ("labels", {}, {"a": "b"}, "label a is now b"),
        ("labels", {"a": "b", "c": "d"}, {"a": "x"}, "label a changed from b to x; label c is no longer there"),
        ("tags", ["x"], ["y"], "tag y added; tag x removed"),
        ("tags", ["x", "y"], ["y", "x"], "tags: another order"),
        ("protected", False, True, "it is protected from deletion"),
        ("node", None, "n1", "it is on node n1 now"),
        ("node", "n1", "n2", "it moved from node n1 to node n2"),
        ("node", "n2", None, "it is no longer on node n2"),
        (
            "pending",
            None,
            {"verb": "stop", "since": "S", "deadline": "D"},
            "stop is under way since S; it has to end until D",
        ),
        ("pending", {"verb": "stop"}, None, "stop is not under way any more"),
        ("failure", None, {"code": "c", "detail": "no disk", "at": "T"}, "it failed: no disk (c)"),
        ("failure", None, "no file", "it failed: no file"),
        ("failure", "no file", None, "its failure is over"),
        ("boots", 1, 3, "2 more boots were ordered, 3 in all"),
        ("guest_boots", 4, 0, "boots of its guest are counted from the beginning: 0"),
        ("restarts", 0, 1, "1 more automatic restart, 1 in all"),
        ("addresses", [], ["10.0.0.2"], "address 10.0.0.2 added"),
        (
            "host_keys",
            [],
            [{"type": "ed25519", "key": "k", "fingerprint": "SHA256:x"}],
            "SSH host key ed25519 SHA256:x is known",
        ),
        (
            "members",
            [{"principal": "user:a", "role": "viewer"}],
            [{"principal": "user:a", "role": "admin"}],
            "user:a is now admin; user:a is no longer viewer",
        ),
        (
            "considered",
            [],
            [{"node": "n", "reason": "no room", "more": 2}],
            "nodes were considered for it (n: no room, and 2 more nodes)",
        ),
        ("rescue", None, "rescue-os", "it boots from image rescue-os to be rescued"),
        ("rescue", "rescue-os", None, "it boots from its own disk again, not from rescue-os"),
        ("restart_at", "T", None, "no restart is planned"),
        ("retired_at", None, "T", "it was retired at T"),
        ("cordoned", True, False, "it takes new VMs again"),
        (
            "daemon",
            {"host": "a", "pid": 1},
            {"host": "b", "pid": 2},
            "the daemon on host b, process 2, works for it",
        ),
    ],
)
def test_a_sentence(field: str, before: Any, after: Any, said: str) -> None:
    assert fields.sentence(field, before, after) == said


def test_values_of_callers_are_plain_and_cut() -> None:
    hostile = "a\x1b[31m\u202eb\u2028c" * 100
    for field in [*SENTENCES, "name"]:
        for before, after in (({}, {"k": hostile}), ([], [hostile]), (None, hostile), (hostile, None)):
            try:
                text = fields.sentence(field, before, after)
            except (AttributeError, TypeError):
                continue  # no field has values of this type
            assert len(text) <= fields.LONGEST_SENTENCE
            assert re.search(r"[\x00-\x1f\x7f\u2028\u202e]", text) is None, field


def test_all_sentences_are_of_fields() -> None:
    there = {
        name
        for table in TABLES.values()
        for name in typing.get_type_hints(inspect.signature(table.view).return_annotation)
    }
    assert set(SENTENCES) <= there
