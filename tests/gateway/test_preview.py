"""What a create would do: the same refusals, and nothing stored."""

import base64
import uuid
from typing import Any

import pytest

from domain.contract import CommandRequest
from runtime import subjects
from tests.gateway.platform import SPEC, VMS, Platform

PREVIEW = "/v1/projects/default/vm-preview"
BODY = {"name": "web-1", "image": "base", **SPEC}


async def previewed(api: Platform, status: int = 200, /, **more: Any) -> Any:
    body = {name: value for name, value in {**BODY, **more}.items() if value is not None}
    answer = await api.call("POST", PREVIEW, body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_where_it_would_be(api: Platform) -> None:
    found = await previewed(api)
    assert found["node"] == "host-1"
    assert found["considered"] == [{"node": "host-1", "reason": None, "more": 0}]
    assert (found["size"], found["warnings"]) == (SPEC, [])
    nowhere = await previewed(api, region="elsewhere")
    assert nowhere["node"] is None
    assert [(one["node"], one["reason"]) for one in nowhere["considered"]] == [
        ("host-1", "is in region default, not elsewhere")
    ]


async def test_the_size_of_a_flavor(api: Platform) -> None:
    flavor = {"name": "Previewed", "vcpus": 3, "memory_mib": 96, "disk_gib": 2}
    assert (await api.call("POST", "/v1/flavors", flavor)).status_code == 202
    none = dict.fromkeys(SPEC)
    assert (await previewed(api, flavor="previewed", **none))["size"] == {"vcpus": 3, "memory_mib": 96, "disk_gib": 2}
    larger = {**none, "disk_gib": 9}
    assert (await previewed(api, flavor="previewed", **larger))["size"]["disk_gib"] == 9


@pytest.mark.parametrize(
    "more",
    [
        {"image": "nothing"},
        {"flavor": "nothing", **dict.fromkeys(SPEC)},
        {"tags": ["nothing"]},
        {"vcpus": 100_000},
        {"memory_mib": 10**9},
        {"name": "NOT A NAME"},
        {"vcpus": 0},
        {"vcpus": None},
        {"nonsense": 1},
        {"user_data": "a", "user_data_base64": "YQ=="},
        {"user_data_base64": "?"},
        {"user_data": "\0"},
        {"id": "no-uuid"},
        {"ssh_keys": ["none"]},
    ],
    ids=lambda more: next(iter(more)),
)
async def test_it_gets_the_refusal_of_the_create(api: Platform, more: dict[str, Any]) -> None:
    body = {name: value for name, value in {**BODY, **more}.items() if value is not None}
    right = await api.call("POST", VMS, body)
    found = await api.call("POST", PREVIEW, body)
    assert right.status_code in (404, 409, 422), right.text
    for answer in (right, found):
        assert answer.headers["content-type"] == "application/problem+json"
    apart = {"request_id"}
    assert found.status_code == right.status_code
    assert {k: v for k, v in found.json().items() if k not in apart} == {
        k: v for k, v in right.json().items() if k not in apart
    }


async def test_an_id_is_used_once(api: Platform) -> None:
    mine = str(uuid.uuid4())
    assert (await previewed(api, id=mine))["node"] == "host-1"
    await api.create(id=mine)
    assert (await previewed(api, 409, id=mine))["code"] == "vm_exists"
    assert (await api.call("POST", "/v1/projects", {"id": "previews", "name": "P"})).status_code == 202
    answer = await api.call("POST", "/v1/projects/previews/vm-preview", {**BODY, "id": mine})
    right = await api.call("POST", "/v1/projects/previews/vms", {**BODY, "id": mine})
    assert (
        (answer.status_code, answer.json()["code"]) == (right.status_code, right.json()["code"]) == (409, "vm_exists")
    )
    assert answer.json()["detail"] == right.json()["detail"]


async def test_a_project_that_is_not_there(api: Platform) -> None:
    answers = [await api.call("POST", f"/v1/projects/none/{what}", BODY) for what in ("vms", "vm-preview")]
    assert [answer.json()["code"] for answer in answers] == ["project_not_found"] * 2
    assert answers[0].status_code == answers[1].status_code


async def test_nothing_is_stored(api: Platform) -> None:
    """No event, no key in the vault; and its user-data is nowhere."""
    js = api.side.nc.jetstream()

    async def stored() -> list[int]:
        return [(await js.stream_info(name)).state.last_seq for name in (subjects.EVENTS, subjects.VAULT)]

    before = await stored()
    text = "#cloud-config\nfoo: [\n"
    for data in ({"user_data": text}, {"user_data_base64": base64.b64encode(text.encode()).decode()}):
        found = await previewed(api, **data)
        assert [warning["code"] for warning in found["warnings"]] == ["user_data_malformed"]
    assert await stored() == before


async def test_older_handlers_do_not_know_it(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.commands.preview.VERB", "of-a-newer-version")
    found = await previewed(api, 503)
    assert found["code"] == "handlers_outdated"


async def test_on_the_bus(api: Platform) -> None:
    """Handlers judge the caller themselves."""
    context = {"actor": "somebody", "grants": [["viewer", "default"]], "request": "r"}
    body = CommandRequest.model_validate({"args": {"name": "x", "image": "base", "spec": SPEC}, "context": context})
    reply = await api.side.nc.request(subjects.command("default", "vm", "preview"), body.body(), timeout=5)
    assert b'"code":"forbidden"' in reply.data
    context["grants"] = [["member", "default"]]
    body = CommandRequest.model_validate({"args": {"name": "x", "image": "base", "spec": SPEC}, "context": context})
    reply = await api.side.nc.request(subjects.command("default", "vm", "preview"), body.body(), timeout=5)
    assert b'"node":"host-1"' in reply.data
