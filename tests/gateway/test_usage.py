"""What the VMs of a project take up, asked over HTTP: now, then, and of projects that are not there."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.contract import Power
from gateway import state
from projections.position import Position
from tests.gateway.platform import SPEC, Platform
from tests.waiting import eventually

NOTHING = {"vms": 0, "vcpus": 0, "memory_mib": 0, "disk_gib": 0}
ONE = {"vms": 1, **SPEC}


@pytest.fixture
async def project(api: Platform) -> dict[str, Any]:
    answer = await api.call("POST", "/v1/projects", {"name": f"u-{uuid.uuid4().hex[:12]}"})
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


def of(project: dict[str, Any]) -> str:
    return f"/v1/projects/{project['project']['id']}"


async def create(api: Platform, project: dict[str, Any]) -> dict[str, Any]:
    answer = await api.call("POST", f"{of(project)}/vms", {"name": "web-1", "image": "base", **SPEC})
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_project_now_and_then(api: Platform, project: dict[str, Any]) -> None:
    usage, nothing = f"{of(project)}/usage", {"in_use": NOTHING, "promised": NOTHING}
    empty = await api.get(usage)
    assert {name: empty[name] for name in nothing} == nothing
    assert (empty["project"], empty["position"] >= project["position"]) == (project["project"]["id"], True)
    made = await create(api, project)
    vm = made["vm"]["id"]
    seen = await api.http.get(usage)
    assert seen.json()["promised"] == ONE, "what the caller wrote is seen at the next read"
    assert int(seen.headers["nebula-position"]) == seen.json()["position"] >= made["position"]
    await eventually(lambda: api.side.wanted(vm), "wanted document")
    await api.report(vm, Power.ON, boots=1)
    await api.get(f"/v1/operations/{made['operation']['id']}?wait=30s")
    now = await api.get(usage)
    assert (now["in_use"], now["promised"]) == (ONE, ONE)

    disk = {**NOTHING, "disk_gib": SPEC["disk_gib"]}
    events = (await api.get(f"/v1/events?vm={vm}"))["items"]
    for event, in_use in zip(events, (NOTHING, disk, ONE), strict=True):
        for at in (event["position"], event["time"]):
            answer = await api.http.get(usage, params={"at": at})
            then = answer.json()
            assert (then["in_use"], then["promised"], then["position"]) == (in_use, ONE, event["position"])
            assert int(answer.headers["nebula-position"]) == event["position"]
    early = await api.get(f"{usage}?at={made['position'] - 1}")
    assert {name: early[name] for name in nothing} == nothing
    assert project["position"] == early["position"]
    later = await api.get(f"{usage}?at={await api.gateway.store.last_position()}")
    assert (later["in_use"], later["position"]) == (ONE, events[-1]["position"])


async def test_a_project_that_is_not_there(api: Platform, project: dict[str, Any]) -> None:
    for name in ("nobody", "NO SUCH THING"):
        for query in ("", "?at=1"):
            problem = await api.get(f"/v1/projects/{name}/usage{query}", 404)
            assert problem["code"] == "project_not_found"
    usage = f"{of(project)}/usage"
    early = await api.get(f"{usage}?at={project['position'] - 1}", 404)
    assert early["code"] == "project_not_found"
    assert (early["errors"][0]["field"], str(project["position"]) in early["detail"]) == ("at", True)
    gone = await api.call("DELETE", of(project))
    done = await api.get(f"/v1/operations/{gone.json()['operation']['id']}?wait=30s")
    assert done["status"] == "succeeded"
    assert (await api.get(usage, 410))["code"] == "project_deleted"
    assert (await api.get(f"{usage}?at={done['position']}", 410))["code"] == "project_deleted"
    assert (await api.get(f"{usage}?at={project['position']}"))["promised"] == NOTHING, "its past stays readable"


async def test_moments_and_positions_are_judged(
    api: Platform, project: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = f"{of(project)}/usage"
    end = await api.gateway.store.last_position()
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for query, field in (
        ({"at": str(end + 1000)}, "at"),
        ({"at": ahead}, "at"),
        ({"at": "yesterday"}, "at"),
        ({"min_position": str(end + 1000)}, "min_position"),
        ({"at": "1", "min_position": str(end + 1000)}, "min_position"),
        ({"limit": "1"}, "limit"),
    ):
        answer = await api.http.get(usage, params=query)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field), query
    made, behind = await create(api, project), Position()
    behind.set(made["position"] - 1)
    monkeypatch.setattr(state, "OWN_WRITES", 0.05)
    with monkeypatch.context() as patched:
        patched.setattr(api.gateway, "position", behind)
        late = await api.http.get(usage)
        assert (late.status_code, late.json()["code"]) == (503, "position_not_reached"), "not without the own write"
    monkeypatch.setattr(state, "PATIENCE", 0.05)
    monkeypatch.setattr(api.gateway, "position", Position())  # the read models stay behind
    for query in ({"at": str(end)}, {"at": datetime.now(UTC).isoformat()}, {"min_position": str(end)}):
        late = await api.http.get(usage, params=query)
        assert (late.status_code, late.json()["code"]) == (503, "position_not_reached"), query
