"""The contract of the API, which the gateway and the platform in miniature that the CLI is tested on both pass.

Each answer of both is held against the description of the API as well, which says all fields, headers and types.
"""

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import pytest

from domain.contract import Power
from tests import description
from tests.cli import fake
from tests.cli.serving import serving
from tests.domain.lives import SPOKEN
from tests.gateway.platform import SPEC, VMS, Platform, frames
from tests.waiting import eventually

NOBODY = "00000000-0000-4000-8000-000000000000"
#: What an event shows; its resource and its cause may add more.
EVENT = {
    *("specversion", "id", "type", "source", "subject", "position", "digest", "time", "actor"),
    *("aggregateversion", "prevhash", "datacontenttype", "data"),
}


@dataclass
class Side:
    """One of both platforms. `real`: the gateway, with a node that this test answers for."""

    http: httpx.AsyncClient
    real: Platform | None

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.http.request(method, path, json=body, headers=sent)
        target = answer.request.url.path
        assert not description.wrong_answer(method, target, answer.status_code, answer.headers, answer.content)
        return answer

    async def ok(self, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        answer = await self.call(method, path, body, **headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def refused(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        answer = await self.call(method, path, body, **headers)
        return answer.status_code, answer.json()["code"]

    async def created(self, name: str = "web-1", **headers: str) -> Any:
        return await self.ok("POST", VMS, {"name": name, "image": "base", **SPEC}, 202, **headers)

    async def comes_up(self, made: Any) -> Any:
        """The operation of a create or a start, at its end."""
        if self.real is not None:
            side, vm = self.real.side, made["vm"]["id"]
            wanted = await eventually(lambda: side.wanted(vm), "wanted document")
            await side.report(wanted, Power.ON, boots=1, address_sources=(SPOKEN,))
        return await self.ended(made)

    async def ended(self, made: Any) -> Any:
        while True:
            found = await self.ok("GET", f"/v1/operations/{made['operation']['id']}?wait=30s")
            if found["ended_at"] is not None:
                return found


@pytest.fixture
async def miniature() -> AsyncIterator[Side]:
    platform = fake.Platform()
    with serving(platform):
        async with httpx.AsyncClient(base_url=platform.url) as http:
            yield Side(http, None)
        platform.wrong.clear()  # these tests ask for what makes no sense, too


@pytest.fixture
def gateway(api: Platform) -> Side:
    return Side(api.http, api)


@pytest.fixture(params=["miniature", "gateway"])
def side(request: pytest.FixtureRequest) -> Side:
    found: Side = request.getfixturevalue(request.param)
    return found


async def test_a_create_is_accepted(side: Side) -> None:
    answer = await side.call("POST", VMS, {"name": "web-1", "image": "base", **SPEC}, X_Request_Id="mine")
    made = answer.json()
    assert (answer.status_code, [*made]) == (202, ["operation", "vm", "position"])
    assert answer.headers["location"] == f"/v1/operations/{made['operation']['id']}"
    assert (answer.headers["nebula-position"], answer.headers["x-request-id"]) == (str(made["position"]), "mine")
    assert "idempotent-replayed" not in answer.headers
    operation, vm = made["operation"], made["vm"]
    assert (operation["verb"], operation["kind"], operation["resource"]) == ("create", "vm", vm["id"])
    assert (operation["status"], operation["problem"], operation["ended_at"]) == ("accepted", None, None)
    assert [step["type"] for step in operation["events"]] == ["nebula.vm.VmRequested"]
    assert operation["position"] == vm["position"] == made["position"]
    assert (vm["phase"], vm["desired"], vm["version"], vm["ready"]) == ("requested", "on", 1, False)
    assert (vm["pending"]["operation"], vm["pending"]["verb"]) == (operation["id"], "create")


async def test_the_same_key_is_the_same_operation(side: Side) -> None:
    key = str(uuid.uuid4())
    made = await side.created(Idempotency_Key=key)
    again = await side.call("POST", VMS, {"name": "web-1", "image": "base", **SPEC}, Idempotency_Key=key)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json()["operation"]["id"] == made["operation"]["id"]
    assert again.json()["vm"]["id"] == made["vm"]["id"]
    other = {"name": "web-2", "image": "base", **SPEC}
    assert await side.refused("POST", VMS, other, Idempotency_Key=key) == (422, "idempotency_key_reused")
    assert (await side.created())["operation"]["id"] != made["operation"]["id"]


async def test_an_operation_ends(side: Side) -> None:
    made = await side.created()
    operation = await side.comes_up(made)
    assert (operation["status"], operation["problem"]) == ("succeeded", None)
    types = [step["type"].removeprefix("nebula.vm.") for step in operation["events"]]
    assert (types[0], types[-1]) == ("VmRequested", "VmStarted")
    assert operation["position"] == operation["events"][-1]["position"]
    vm = await side.ok("GET", f"{VMS}/{made['vm']['id']}?min_position={operation['position']}")
    assert (vm["phase"], vm["pending"], vm["node"]) == ("running", None, "host-1")
    then = await side.ok("GET", f"{VMS}/{vm['id']}?at={made['position']}")
    assert (then["phase"], then["position"]) == ("requested", made["position"])
    assert await side.refused("GET", f"{VMS}/{vm['id']}?at={made['position'] - 1}") == (404, "vm_not_found")
    for at, phases in ((made["position"] - 1, []), (made["position"], ["requested"])):
        listed = await side.ok("GET", f"{VMS}?at={at}&name={vm['name']}")
        assert [each["phase"] for each in listed["items"] if each["id"] == vm["id"]] == phases
        assert listed["position"] == at


async def test_a_change_is_done_when_it_is_accepted(side: Side) -> None:
    vm = (await side.created())["vm"]["id"]
    changed = await side.ok("PATCH", f"{VMS}/{vm}", {"labels": {"team": "blue"}, "protected": True}, 202)
    assert (changed["operation"]["verb"], changed["operation"]["status"]) == ("change", "succeeded")
    assert (changed["vm"]["labels"], changed["vm"]["protected"]) == ({"team": "blue"}, True)
    assert changed["vm"]["pending"]["verb"] == "create"
    assert await side.refused("PATCH", f"{VMS}/{vm}", {"nonsense": 1}) == (422, "invalid_request")


async def test_a_verb_has_to_fit_the_phase_and_what_is_pending(side: Side) -> None:
    made = await side.created()
    vm = f"{VMS}/{made['vm']['id']}"
    assert await side.refused("POST", f"{vm}/pause", {}) == (409, "operation_pending")
    await side.comes_up(made)
    for verb in ("start", "resume", "retry", "abandon"):
        assert await side.refused("POST", f"{vm}/{verb}", {}) == (409, "wrong_phase")
    paused = await side.ok("POST", f"{vm}/pause", {}, 202)
    assert (paused["operation"]["status"], paused["vm"]["pending"]["verb"]) == ("accepted", "pause")
    assert await side.refused("POST", f"{vm}/resume", {}) == (409, "operation_pending")
    abandoned = await side.ok("POST", f"{vm}/abandon", {}, 202)
    assert (abandoned["operation"]["status"], abandoned["vm"]["pending"]) == ("succeeded", None)
    assert (await side.ended(paused))["status"] == "cancelled"


async def test_what_was_deleted_is_known_as_such(side: Side) -> None:
    made = await side.created()
    vm = f"{VMS}/{made['vm']['id']}"
    deleting = await side.ok("DELETE", vm, status=202)
    assert deleting["operation"]["verb"] == "delete"
    assert (await side.ended(made))["status"] == "cancelled"
    if side.real is not None and deleting["vm"]["phase"] != "deleted":
        wanted = await eventually(lambda: side.real and side.real.side.wanted(made["vm"]["id"]), "wanted document")
        await side.real.side.report(wanted, Power.ABSENT)
    assert (await side.ended(deleting))["status"] == "succeeded"
    assert await side.refused("GET", vm) == (410, "vm_deleted")
    assert await side.refused("POST", f"{vm}/start", {}) == (410, "vm_deleted")
    assert (await side.ok("GET", f"{vm}?at={made['position']}"))["phase"] == "requested"


async def test_lists_have_pages(side: Side) -> None:
    name = f"page-{uuid.uuid4().hex[:8]}"
    made = [(await side.created(name))["vm"]["id"] for _ in range(3)]
    first = await side.ok("GET", f"{VMS}?name={name}&limit=2")
    assert [*first] == ["items", "next_page_token", "position"]
    second = await side.ok("GET", f"{VMS}?name={name}&limit=2&page_token={first['next_page_token']}")
    assert [vm["id"] for vm in first["items"] + second["items"]] == made
    assert second["next_page_token"] is None
    other = f"{VMS}?name=other&page_token={first['next_page_token']}"
    assert await side.refused("GET", other) == (400, "invalid_parameter")
    assert (await side.ok("GET", f"{VMS}?name={name}&phase=stopped"))["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "problem"),
    [
        ("GET", "/v1/nothing", (404, "no_such_route")),
        ("GET", f"{VMS}/{NOBODY}", (404, "vm_not_found")),
        ("POST", f"{VMS}/{NOBODY}/start", (404, "vm_not_found")),
        ("GET", "/v1/projects/none/vms", (404, "project_not_found")),
        ("GET", f"/v1/operations/{NOBODY}", (404, "operation_not_found")),
        ("PUT", VMS, (405, "method_not_allowed")),
        ("GET", f"{VMS}?nonsense=1", (400, "invalid_parameter")),
        ("GET", f"{VMS}?limit=0", (400, "invalid_parameter")),
        ("GET", f"/v1/operations/{NOBODY}?wait=soon", (400, "invalid_parameter")),
        ("GET", f"{VMS}/{NOBODY}?at=999999999", (400, "invalid_parameter")),
        ("GET", "/v1/events?after=999999999", (400, "invalid_parameter")),
        ("GET", "/v1/feed?from=then", (400, "invalid_parameter")),
        ("GET", "/v1/feed?after=999999999", (400, "invalid_parameter")),
    ],
)
async def test_what_makes_no_sense(side: Side, method: str, path: str, problem: tuple[int, str]) -> None:
    assert await side.refused(method, path) == problem


@pytest.mark.parametrize(("field", "value"), [("name", "WEB"), ("vcpus", 0), ("ssh_keys", ["ssh-rsa AAAA"]), ("x", 1)])
async def test_a_body_is_refused_by_its_fields(side: Side, field: str, value: Any) -> None:
    answer = await side.call("POST", VMS, {"name": "web-1", "image": "base", **SPEC, field: value})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_request")
    assert [error["field"].partition(".")[0] for error in problem["errors"]] == [field]


@pytest.mark.parametrize("how", ["events", "feed"])
async def test_events_come_in_the_order_of_the_log(side: Side, how: Literal["events", "feed"]) -> None:
    made = await side.created()
    vm, before = made["vm"]["id"], made["position"] - 1
    await side.comes_up(made)
    if how == "events":
        found = (await side.ok("GET", f"/v1/events?vm={vm}&after={before}"))["items"]
        page = await side.ok("GET", f"/v1/events?vm={vm}&kind=vm&after={before}&limit=1")
        assert page["items"] == found[:1] and page["next_page_token"] is not None
    else:
        found = await frames(side.http, f"{VMS}/{vm}/feed?after={before}", 2)
        assert [item["prev"] for item in found] == [before, found[0]["position"]]
        assert [item["sse_id"] for item in found] == [str(item["position"]) for item in found]
        assert [item["sse_event"] for item in found] == [item["type"] for item in found]
    assert [event["type"] for event in found][:2] == ["nebula.vm.VmRequested", "nebula.vm.VmScheduled"]
    assert [event["aggregateversion"] for event in found] == [*range(1, 1 + len(found))]
    first = found[0]
    assert first.keys() >= EVENT
    assert first["subject"] == f"nebula.events.default.vm.{vm}"
    assert (first["position"], first["prevhash"]) == (before + 1, "0" * 64)
    assert found[1]["prevhash"] == first["digest"]
    assert first["data"]["operation"] == made["operation"]["id"]
    assert first["data"]["name"] == "web-1"


async def test_a_feed_says_first_where_it_begins(side: Side) -> None:
    position = (await side.created())["position"]
    async with side.http.stream("GET", "/v1/feed", headers={"Last-Event-ID": str(position)}) as answer:
        headers = (answer.status_code, answer.headers["content-type"].partition(";")[0])
        lines = answer.aiter_lines()
        said = [await anext(lines) for _ in range(3)]
    assert headers == (200, "text/event-stream")
    assert (said[0][:1], said[1], said[2]) == (":", f"id: {position}", "")


def test_what_is_wrong_in_an_answer_is_seen() -> None:
    """Whatever the description refuses is found: the tests of the CLI rest on that."""
    headers = {"X-Request-Id": "r", "Nebula-Position": "1", "Content-Type": "application/json"}
    item = {"id": "x", "name": "x", **fake.PROJECT}
    good = {"items": [item], "next_page_token": None, "position": 1}

    def wrong(body: object, status: int = 200, path: str = "/v1/projects", more: dict[str, str] | None = None) -> bool:
        return bool(
            description.wrong_answer("GET", path, status, {**headers, **(more or {})}, json.dumps(body).encode())
        )

    assert not wrong(good)
    assert wrong({**good, "more": 1})
    assert wrong({**good, "items": [{**item, "more": 1}]})
    assert wrong({**good, "items": [{**item, "version": "1"}]})
    assert wrong({"items": []})
    assert wrong(good, 202)
    assert wrong(good, path="/v1/nothing")
    assert wrong(good, more={"Content-Type": "text/plain"})
    assert wrong(good, more={"Nebula-Position": "x"})
    assert description.wrong_parameters("GET", "/v1/projects", {"tags": "x"}, {}) == ["tags"]
    assert description.wrong_parameters("GET", "/v1/events", {"after": "-1"}, {}) == ["after"]
    assert not description.wrong_parameters("GET", "/v1/events", {"after": "1"}, {"Accept": "*/*"})
