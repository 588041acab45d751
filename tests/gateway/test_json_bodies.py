"""What a body is to look like, before anybody asks what it says."""

import re
from typing import Any

import pytest

from projections import ssh
from tests.gateway.platform import SPEC, VMS, Platform

NOBODY = "2a4eac9a-8cad-4466-8f01-db5cb1899700"
JSON = {"Content-Type": "application/json"}
GOOD = {"name": "web-1", "image": "base", **SPEC}


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 415, "unsupported_media_type"),
        ({"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/jsonx"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415, "unsupported_content_encoding"),
        ({"Content-Type": "application/json", "Content-Encoding": "br, gzip"}, 415, "unsupported_content_encoding"),
        ({"Content-Type": "application/json; charset=UTF-8"}, 404, "vm_not_found"),
        ({"Content-Type": "Application/JSON", "Content-Encoding": "identity"}, 404, "vm_not_found"),
    ],
)
async def test_a_body_is_json_as_it_is(api: Platform, headers: dict[str, str], status: int, code: str) -> None:
    answer = await api.http.post(f"{VMS}/{NOBODY}/stop", content=b'{"force": true}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        (b'{"force": true, "force": false}', "duplicate_name", "force"),
        (b'{"grace_seconds": 1, "for\\u0063e": true, "force": true}', "duplicate_name", "force"),
        (b'{"a": {"b": {"c": 1, "c": 2}}}', "duplicate_name", "c"),
        (b"\xef\xbb\xbf{}", "invalid_json", "byte order mark"),
        ("{}".encode("utf-16"), "invalid_json", "UTF-8"),
        (b'{"force": "\xff"}', "invalid_json", "UTF-8"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "invalid_json", "deep"),
        (b'{"a": "' + b"[" * 100 + b'"', "invalid_json", "line 1"),
        (b"9" * 10_000, "invalid_json", "number"),
    ],
)
async def test_json_that_can_be_read_in_two_ways(api: Platform, text: bytes, code: str, word: str) -> None:
    answer = await api.http.post(f"{VMS}/{NOBODY}/stop", content=text, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text
    assert word in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", VMS, {f"f{n}": 0 for n in range(80_000)}),
        ("POST", VMS, {**GOOD, "tags": list(range(64)), "ssh_keys": ["x"] * 64}),
        ("DELETE", f"{VMS}/{NOBODY}", {"k" * 150 + str(n): n for n in range(5_000)}),
    ],
    ids=["unknown fields", "wrong items", "a body where none belongs"],
)
async def test_the_errors_of_one_body_are_few(api: Platform, method: str, path: str, body: Any) -> None:
    answer = await api.call(method, path, body)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 20
    assert re.search("; and [0-9]+ more$", answer.json()["detail"])
    assert len(answer.content) < 20_000


async def test_a_long_array_is_refused_without_a_look_at_its_items(
    api: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "parse", None)
    answer = await api.call("POST", VMS, {**GOOD, "tags": [1] * 100_000, "ssh_keys": ["x"] * 100_000})
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == ["tags", "ssh_keys"]
