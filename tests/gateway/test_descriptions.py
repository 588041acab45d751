"""What VMs and projects are for, in people's words; and who made them."""

import unicodedata
import uuid
from typing import Any

import pytest

from domain.vm import VmRequested
from tests.gateway.platform import SPEC, VMS, Platform

BODY = {"name": "web-1", "image": "base", **SPEC}


async def made(api: Platform, path: str, body: dict[str, Any]) -> tuple[str, Any]:
    """The path of what was made, and it as the answer shows it."""
    answer = await api.call("POST", path, body)
    assert answer.status_code == 202, answer.text
    found = answer.json()["vm" if path == VMS else "project"]
    return f"{path}/{found['id']}", found


def new(path: str) -> dict[str, Any]:
    return dict(BODY) if path == VMS else {"name": f"p-{uuid.uuid4().hex[:12]}"}


@pytest.mark.parametrize("path", [VMS, "/v1/projects"])
async def test_it_is_said_at_first_changed_and_taken_away(api: Platform, path: str) -> None:
    at, first = await made(api, path, {**new(path), "description": " Shop of Jose\u0301 "})
    assert (
        first["description"] == (await api.get(at))["description"] == unicodedata.normalize("NFC", "Shop of Jos\u00e9")
    )
    for said, shown in (("x" * 1000, "x" * 1000), ("", None), ("again", "again")):
        answer = await api.call("PATCH", at, {"description": said})
        assert answer.status_code == 202, answer.text
        assert (await api.get(at))["description"] == shown
    await api.call("PATCH", at, {"tags": []})
    assert (await api.get(at))["description"] == "again", "what is not given stays"
    silent, _ = await made(api, path, new(path))
    assert (await api.get(silent))["description"] is None


@pytest.mark.parametrize("wrong", ["x" * 1001, "two\nlines", "a\ttab", "bell\a", "\u202eback", "a\u0000", 7, ["x"]])
async def test_what_is_no_description(api: Platform, wrong: Any) -> None:
    for path in (VMS, "/v1/projects"):
        answer = await api.call("POST", path, {**new(path), "description": wrong})
        assert answer.status_code in (400, 422), answer.text
        assert [each["field"] for each in answer.json()["errors"]] == ["description"]


async def test_who_made_it_is_the_actor_and_nothing_that_is_claimed(api: Platform) -> None:
    at, first = await made(api, VMS, new(VMS))
    assert first["created_by"] == (await api.get(at))["created_by"] == "local"
    position = first["position"]
    assert (await api.get(f"{at}?at={position}"))["created_by"] == "local", "also as it was"
    project, said = await made(api, "/v1/projects", new("/v1/projects"))
    assert said["created_by"] == (await api.get(project))["created_by"] == "local"

    vm = str(uuid.uuid4())
    args = {**api.side.vm_args(vm), "created_by": "somebody else"}
    done = await api.side.ok("default", "vm", "create", args, actor="José of accounting")
    assert done["state"]["created_by"] == "José of accounting"
    reached = f"{VMS}/{vm}?min_position={done['position']}"
    assert (await api.get(reached))["created_by"] == "José of accounting"


async def test_it_is_known_of_vms_that_were_made_before_it_was_shown(api: Platform) -> None:
    at, _ = await made(api, VMS, new(VMS))
    (event, *_) = await api.side.events("default", "vm", at.rsplit("/", 1)[-1])
    assert b"created_by" not in event.body, "the header says it alone, in old events and in new ones"
    assert isinstance(event.event, VmRequested) and event.event.created_by == "local"
