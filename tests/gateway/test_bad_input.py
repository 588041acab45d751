"""Whatever is wrong with a call gets a 4xx problem document that names the field."""

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway.platform import SPEC, VMS, Platform
from tests.projections.cloud import SSH_KEY

NOBODY = "2a4eac9a-8cad-4466-8f01-db5cb1899700"
JSON = {"Content-Type": "application/json"}
GOOD = {"name": "web-1", "image": "base", **SPEC}

BODIES: list[tuple[dict[str, Any], str]] = [
    ({"vcpus": 0}, "vcpus"),
    ({"vcpus": -1}, "vcpus"),
    ({"vcpus": 10**9}, "vcpus"),
    ({"vcpus": "2"}, "vcpus"),
    ({"vcpus": True}, "vcpus"),
    ({"vcpus": 1.5}, "vcpus"),
    ({"vcpus": None}, "vcpus"),
    ({"vcpus": 10**400}, "vcpus"),
    ({"memory_mib": 0}, "memory_mib"),
    ({"memory_mib": -512}, "memory_mib"),
    ({"memory_mib": 10**12}, "memory_mib"),
    ({"memory_mib": "512MB"}, "memory_mib"),
    ({"disk_gib": 0}, "disk_gib"),
    ({"disk_gib": -4}, "disk_gib"),
    ({"disk_gib": 10**15}, "disk_gib"),
    ({"disk_gib": []}, "disk_gib"),
    ({"name": ""}, "name"),
    ({"name": "Web_1"}, "name"),
    ({"name": "-web"}, "name"),
    ({"name": "web.example.org"}, "name"),
    ({"name": "a" * 64}, "name"),
    ({"name": "web\n"}, "name"),
    ({"name": 7}, "name"),
    ({"image": "no/such"}, "image"),
    ({"image": "no-such-image"}, "image"),
    ({"tags": ["no-such-tag"]}, "tags"),
    ({"tags": "blue"}, "tags"),
    ({"labels": {"Team": "blue"}}, "labels"),
    ({"labels": {"": "blue"}}, "labels"),
    ({"labels": {"a" * 64: "blue"}}, "labels"),
    ({"labels": {"team": "a" * 256}}, "labels"),
    ({"labels": {"team": "a\nb"}}, "labels"),
    ({"labels": {"team": 7}}, "labels.team"),
    ({"labels": {"k" * 100_000: 7}}, "labels." + "k" * 193),
    ({"labels": {f"k{n}": "" for n in range(65)}}, "labels"),
    ({"labels": ["team"]}, "labels"),
    ({"protected": "yes"}, "protected"),
    ({"restart_policy": "sometimes"}, "restart_policy"),
    ({"restart_policy": False}, "restart_policy"),
    ({"watchdog": "bark"}, "watchdog"),
    ({"watchdog": True}, "watchdog"),
    ({"user_data": "x" * 65537}, "user_data"),
    ({"user_data": "\u00e9" * 40000}, "user_data"),
    ({"user_data": "a\0b"}, "user_data"),
    ({"user_data": {"not": "text"}}, "user_data"),
    ({"user_data": [1, 2]}, "user_data"),
    ({"ssh_keys": ["nonsense"]}, "ssh_keys.0"),
    ({"ssh_keys": [SSH_KEY, SSH_KEY.replace("ssh-ed25519", "ssh-rsa")]}, "ssh_keys.1"),
    ({"ssh_keys": [f"{SSH_KEY}\nssh-ed25519 AAAA"]}, "ssh_keys.0"),
    ({"ssh_keys": [SSH_KEY] * 65}, "ssh_keys"),
    ({"ssh_keys": ["ssh-rsa " + "A" * 20000]}, "ssh_keys.0"),
    ({"id": "not-a-uuid"}, "id"),
    ({"id": NOBODY.replace("-", "")}, "id"),
    ({"region": "No Region"}, "region"),
    ({"flavour": "large"}, "flavour"),
    ({"spec": {"vcpus": 1}}, "spec"),
]


@pytest.mark.parametrize(("change", "field"), BODIES, ids=lambda value: str(value)[:40])
async def test_bodies(api: Platform, change: dict[str, Any], field: str) -> None:
    answer = await api.call("POST", VMS, {**GOOD, **change})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["type"] == f"urn:nebula:problem:{problem['code']}"
    assert problem["status"] == 422
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("missing", ["name", "image", "vcpus", "memory_mib", "disk_gib"])
async def test_missing_fields(api: Platform, missing: str) -> None:
    answer = await api.call("POST", VMS, {k: v for k, v in GOOD.items() if k != missing})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [missing]


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"name=web",
        b"\xff\xfe",
        b'{"name": "\\ud800"}',
        b'{"name": 1,}',
        b"{'name': 1}",
        b"[" * 100_000,
    ],
    ids=["cut", "form", "binary", "surrogate", "comma", "quotes", "deep"],
)
async def test_json_that_is_no_json(api: Platform, text: bytes) -> None:
    answer = await api.http.post(VMS, content=text, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "invalid_json"


@pytest.mark.parametrize("text", ["[]", '"text"', "1", "null"])
async def test_json_that_is_no_object(api: Platform, text: str) -> None:
    answer = await api.http.post(VMS, content=text, headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "(body)"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "(body)"),
        ({"name": None}, "(body)"),
        ({"name": "No Name"}, "name"),
        ({"tags": ["no such"]}, "tags.0"),
        ({"labels": {"A": ""}}, "labels"),
        ({"protected": 1}, "protected"),
        ({"watchdog": ""}, "watchdog"),
        ({"phase": "running"}, "phase"),
    ],
)
async def test_a_patch_that_makes_no_sense(api: Platform, body: Any, field: str) -> None:
    answer = await api.call("PATCH", f"{VMS}/{NOBODY}", body)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("reason", [None, "", "   ", "a" * 501, "two\nlines", 7])
async def test_a_reason_is_a_sentence(api: Platform, reason: Any) -> None:
    body = {} if reason is None else {"reason": reason}
    answer = await api.call("POST", f"{VMS}/{NOBODY}/forget", body)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == ["reason"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "3601", '"90"', "true"])
async def test_grace_is_seconds(api: Platform, value: str) -> None:
    answer = await api.http.post(f"{VMS}/{NOBODY}/stop", content=f'{{"grace_seconds": {value}}}', headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "grace_seconds"
    assert math.isfinite(json.loads(answer.text)["status"])


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", f"{VMS}/{NOBODY}", "vm_not_found"),
        ("GET", f"{VMS}/{NOBODY}?at=1", "vm_not_found"),
        ("GET", f"{VMS}/not-a-uuid", "vm_not_found"),
        ("GET", f"{VMS}/..%2f..%2fetc", "no_such_route"),
        ("GET", f"{VMS}/%00", "vm_not_found"),
        ("GET", f"{VMS}/{NOBODY}/feed", "vm_not_found"),
        ("GET", "/v1/projects/nobody", "project_not_found"),
        ("GET", "/v1/projects/No.Body/vms", "project_not_found"),
        ("GET", "/v1/projects/nobody/vms", "project_not_found"),
        ("GET", "/v1/projects/nobody/feed", "project_not_found"),
        ("GET", "/v1/projects/*/feed", "project_not_found"),
        ("GET", f"/v1/operations/{NOBODY}", "operation_not_found"),
        ("GET", "/v1/operations/nonsense", "operation_not_found"),
        ("GET", "/v1/images/nobody", "image_not_found"),
        ("GET", "/v1/nodes/nobody", "node_not_found"),
        ("GET", "/v1/tags/nobody", "tag_not_found"),
        ("POST", f"{VMS}/{NOBODY}/start", "vm_not_found"),
        ("POST", f"{VMS}/nonsense/start", "vm_not_found"),
        ("DELETE", f"{VMS}/{NOBODY}", "vm_not_found"),
        ("POST", f"/v1/projects/nobody/vms/{NOBODY}/stop", "vm_not_found"),
        ("DELETE", "/v1/projects/nobody", "project_not_found"),
        ("DELETE", "/v1/images/nobody", "image_not_found"),
        ("POST", "/v1/nodes/nobody/cordon", "node_not_found"),
        ("GET", "/v1/nothing", "no_such_route"),
        ("GET", "/index.html", "no_such_route"),
        ("GET", "/consoles/", "no_such_route"),
        ("GET", f"{VMS}/", "no_such_route"),
    ],
)
async def test_what_is_not_there(api: Platform, method: str, path: str, code: str) -> None:
    answer = await api.call(method, path)
    assert answer.status_code == 404, answer.text
    assert answer.json()["code"] == code
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_vm_in_no_project(api: Platform) -> None:
    answer = await api.call("POST", "/v1/projects/nobody/vms", GOOD)
    assert (answer.status_code, answer.json()["code"]) == (404, "project_not_found")


async def test_other_methods(api: Platform) -> None:
    answer = await api.call("PUT", VMS, GOOD)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page_token=nonsense", "page_token"),
        ("page_token=" + "A" * 5000, "page_token"),
        ("page_token=b3BlcmF0aW9ucyAx", "page_token"),  # of another list
        ("page_token=dm1zIC0x", "page_token"),  # "vms -1"
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=%D9%A3", "limit"),  # an Arabic digit
        ("min_position=-1", "min_position"),
        ("min_position=soon", "min_position"),
        ("min_position=9223372036854775808", "min_position"),
        ("min_position=1e3", "min_position"),
        ("phase=flying", "phase"),
        ("name=%00", "name"),
        ("tag=a%0Ab", "tag"),
        ("label=", "label"),
        ("label=Team", "label"),
        ("label==blue", "label"),
        ("label=team=a%0Ab", "label"),
        ("label=team=" + "a" * 256, "label"),
        ("colour=red", "colour"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_list_parameters(api: Platform, query: str, field: str) -> None:
    answer = await api.call("GET", f"{VMS}?{query}")
    assert answer.status_code == 400, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{VMS}/{NOBODY}?at=yesterday", "at"),
        (f"{VMS}/{NOBODY}?at=2026-01-01", "at"),
        (f"{VMS}/{NOBODY}?at=2026-13-01T00:00:00Z", "at"),
        (f"{VMS}/{NOBODY}?at=2026-01-01T00:00:00", "at"),
        (f"{VMS}/{NOBODY}?at=-5", "at"),
        (f"{VMS}/{NOBODY}?at=999999999999", "at"),
        (f"{VMS}/{NOBODY}?at=", "at"),
        (f"/v1/operations/{NOBODY}?wait=forever", "wait"),
        (f"/v1/operations/{NOBODY}?wait=-1s", "wait"),
        (f"/v1/operations/{NOBODY}?wait=61s", "wait"),
        (f"/v1/operations/{NOBODY}?wait=nan", "wait"),
        ("/v1/operations?status=done", "status"),
        ("/v1/events?wait=1h", "wait"),
        ("/v1/events?from=then", "from"),
        ("/v1/events?to=2026-01-01T25:00:00Z", "to"),
        ("/v1/events?after=x", "after"),
        ("/v1/events?kind=cow", "kind"),
        ("/v1/feed?after=x", "after"),
        ("/v1/feed?after=-1", "after"),
        ("/v1/feed?from=then", "from"),
        ("/v1/feed?from=now&after=1", "from"),
    ],
)
async def test_other_parameters(api: Platform, path: str, field: str) -> None:
    answer = await api.call("GET", path)
    assert answer.status_code == 400, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_bad_last_event_id(api: Platform) -> None:
    answer = await api.call("GET", "/v1/feed", last_event_id="abc")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Last-Event-ID"


@pytest.mark.parametrize("key", ["", "with space", "k" * 256, "caf\u00e9"])
async def test_idempotency_keys(api: Platform, key: str) -> None:
    answer = await api.http.post(VMS, json=GOOD, headers={b"Idempotency-Key": key.encode("latin-1")})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_wait_on_a_command(api: Platform) -> None:
    answer = await api.call("POST", f"{VMS}?wait=soon", GOOD)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "wait"


async def test_a_body_that_says_it_is_too_large(api: Platform) -> None:
    answer = await api.http.post(VMS, content=b"x" * (1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_body_of_100_mb_is_not_kept(api: Platform) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1600):
            yield b" " * 65536

    answer = await api.http.post(VMS, content=chunks())
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert (await api.http.get("/healthz")).status_code == 200


async def test_browsers_of_elsewhere_are_refused(api: Platform) -> None:
    answer = await api.call("POST", VMS, GOOD, origin="http://evil.example")
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    answer = await api.call("GET", VMS, host="evil.example:8700")
    assert answer.status_code == 403
