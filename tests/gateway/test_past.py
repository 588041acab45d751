"""The past over HTTP: what was answered at each moment of a life is answered again with `at`, to whom it belongs."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from domain.contract import Power
from gateway import state
from gateway.table.reads import READS
from projections.nodes import NO_HEARTBEAT
from projections.position import Position
from runtime.local.servers import Postgres
from runtime.tasks.tasks import end
from tests.gateway.matrix import OWN, World, made, world
from tests.gateway.platform import SPEC, Platform, platform
from tests.waiting import eventually

LISTS = (
    *("/v1/projects", "/v1/images", "/v1/flavors", "/v1/tags", "/v1/users", "/v1/service-accounts", "/v1/nodes"),
    *("/v1/tokens", "/v1/operations", "/v1/enrollments"),
)
#: What only a gateway knows, and only now.
NOW_ONLY = {**NO_HEARTBEAT, "last_used_at": None}


def without_now(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: NOW_ONLY.get(name, value) for name, value in item.items()}


class Recorder:
    """Asks some reads again and again, and keeps each answer by the position that it reflects."""

    def __init__(self, api: Platform, paths: list[str]) -> None:
        self.api, self.paths = api, paths
        self.seen: dict[tuple[str, int], Any] = {}

    async def look(self) -> None:
        for path in self.paths:
            answer = await self.api.http.get(path)
            if answer.status_code != 200:
                continue
            body = answer.json()
            position = int(answer.headers["nebula-position"])
            if "items" in body:
                body["items"] = [without_now(item) for item in body["items"]]
            else:
                body = without_now(body)
            self.seen[path, position] = body

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[World]:
    home: Path = tmp_path_factory.mktemp("past")
    async with platform(home, postgres) as api, world(api) as made_world:
        yield made_world


async def done(api: Platform, method: str, path: str, body: object = None) -> dict[str, Any]:
    answer = await api.call(method, path, body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = await api.get(f"/v1/operations/{answer.json()['operation']['id']}?wait=30s")
    assert found["status"] == "succeeded", found
    return found


async def test_what_was_answered_then_is_answered_again(api: Platform) -> None:
    name, vm = f"p-{uuid.uuid4().hex[:10]}", str(uuid.uuid4())
    inside = f"/v1/projects/{name}/vms"
    of_vm = f"{inside}/{vm}"
    vms = [
        inside,
        f"{inside}?phase=running",
        f"{inside}?tag=blue-{name}",
        f"{inside}?label=a=b",
        f"{inside}?node=host-1",
    ]
    one = [f"/v1/projects/{name}", of_vm, "/v1/nodes/host-1", f"/v1/tags/blue-{name}", f"/v1/flavors/f-{name}"]
    recorder = Recorder(
        api, [*(f"{path}?limit=500" for path in LISTS), *vms, *one, "/v1/operations?kind=vm&status=running"]
    )
    begun = (await api.get("/v1/projects"))["position"]
    recording = asyncio.create_task(recorder.run())
    try:
        await done(api, "POST", "/v1/projects", {"id": name, "name": name})
        await done(api, "POST", "/v1/tags", {"id": f"blue-{name}", "name": f"Blue {name}"})
        await done(api, "POST", "/v1/flavors", {"id": f"f-{name}", "name": "F", **SPEC})
        await done(api, "POST", f"/v1/projects/{name}/bind", {"principal": "oidc:someone", "role": "viewer"})
        body = {"id": vm, "name": "web-1", "image": "base", "flavor": f"f-{name}", "tags": [f"blue-{name}"]}
        answer = await api.call("POST", inside, {**body, "labels": {"a": "b"}})
        assert answer.status_code == 202, answer.text
        operation = answer.json()["operation"]["id"]
        recorder.paths.append(f"/v1/operations/{operation}")
        await eventually(lambda: api.side.wanted(vm), "wanted document")
        await api.report(vm, Power.ON, boots=1)
        await api.get(f"/v1/operations/{operation}?wait=30s")
        await recorder.look()  # also on a slow machine, on which the life ends before the recorder has seen it
        await api.call("PATCH", of_vm, {"name": "web-2", "labels": {}})
        await api.call("POST", f"{of_vm}/stop", {})
        await api.report(vm, Power.OFF, boots=1)
        await eventually(lambda: phase_is(api, of_vm, "stopped"), "stopped")
        await api.call("DELETE", of_vm)
        await api.report(vm, Power.ABSENT)
        await eventually(lambda: gone(api, of_vm), "deleted")
        await done(api, "DELETE", f"/v1/projects/{name}")
        await api.gateway.caught_up()
    finally:
        await end([recording])
    await recorder.look()
    # not the end of the log after the last command: managers may append what follows from it a moment later
    last = max(position for _, position in recorder.seen)
    await eventually(lambda: api.gateway.past.position.value >= last, "the past has come as far")
    for (path, position), then in recorder.seen.items():
        sign = "&" if "?" in path else "?"
        answer = await api.http.get(f"{path}{sign}at={position}")
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found == {**then, **({"position": position} if "items" in then else {})}, (path, position)
    seen = {path for path, _ in recorder.seen}
    assert seen == set(recorder.paths), "each read was seen"

    assert (await api.get(f"{of_vm}?at={last}"))["phase"] == "deleted", "a deleted VM is shown"
    assert (await api.get(f"{inside}?at={last}", 410))["code"] == "project_deleted"
    assert (await api.get(f"/v1/flavors/f-{name}?at={begun}", 404))["errors"][0]["field"] == "at"
    assert (await api.get(f"{inside}?at={begun}", 404))["code"] == "project_not_found"
    early = await api.get(f"/v1/operations/{operation}?at={begun}", 404)
    assert (early["code"], early["errors"][0]["detail"]) == ("operation_not_found", "too early")
    events = (await api.get(f"/v1/events?vm={vm}"))["items"]
    for event in events:
        by_time = await api.get(f"{inside}?at={event['time']}".replace("+", "%2B"))
        assert by_time["items"] == (await api.get(f"{inside}?at={by_time['position']}"))["items"]
        assert by_time["position"] >= event["position"]
        upto = await api.get(f"/v1/events?vm={vm}&at={event['position']}")
        assert [each["position"] for each in upto["items"]][-1] == event["position"]
    assert (await api.get(f"{inside}?at={datetime.now(UTC).isoformat()}".replace("+", "%2B"), 410))["status"] == 410


async def phase_is(api: Platform, path: str, phase: str) -> bool:
    return bool((await api.get(path))["phase"] == phase)


async def gone(api: Platform, path: str) -> bool:
    return (await api.http.get(path)).status_code == 410


async def test_pages_hold_for_one_moment(api: Platform) -> None:
    for _ in range(3):
        await api.create(name="kept")
    first = await api.get("/v1/projects/default/vms?name=kept")
    at = first["position"]
    await api.create(name="kept")
    found, token = [], ""
    while True:
        page = await api.get(f"/v1/projects/default/vms?name=kept&limit=1&at={at}{token}")
        assert page["position"] == at
        found += page["items"]
        if page["next_page_token"] is None:
            break
        token = f"&page_token={page['next_page_token']}"
    assert found == first["items"]
    for other in (f"&at={at - 1}", ""):
        refused = await api.get(f"/v1/projects/default/vms?name=kept&limit=1{token}{other}", 400)
        assert refused["errors"][0]["field"] == "page_token"


async def test_what_cannot_be_asked(api: Platform) -> None:
    at = await api.gateway.store.last_position()
    operation = (await api.create())["operation"]["id"]
    for path in (f"/v1/operations/{operation}", "/v1/events"):
        refused = await api.get(f"{path}?wait=1s&at={at}", 400)
        assert refused["errors"][0]["field"] == "wait"
    for path in LISTS:
        assert (await api.get(f"{path}?at={at + 10_000}", 400))["errors"][0]["field"] == "at"
        assert (await api.get(f"{path}?at=soon", 400))["errors"][0]["field"] == "at"
    for path in ("/v1/status", "/v1/me", "/v1/refusals", "/v1/parked", "/v1/projects/default/feed"):
        assert (await api.get(f"{path}?at={at}", 400))["errors"][0]["field"] == "at"


def test_each_read_has_a_past_or_a_reason() -> None:
    """The reads without `at` are those that the documentation lists, each once, with the reason."""
    text = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
    table = text.partition("These reads have no `at`:")[2].partition("\n\n###")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
    assert all(reason.strip() for _, reason in rows)
    listed = [path for paths, _ in rows for path in re.findall(r"`([^`]+)`", paths)]
    without = [read.path for read in READS if read.method == "GET" and "at" not in read.parameters]
    assert sorted(listed) == sorted(without)


async def test_a_past_that_is_behind(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """One resource comes from the log then, lists say what is missing."""
    vm = (await api.create(name="behind"))["vm"]
    at = (await api.get("/v1/projects/default/vms?name=behind"))["position"]
    monkeypatch.setattr("gateway.reads.moments.PATIENCE", 0.05)
    path = f"/v1/projects/default/vms/{vm['id']}"
    right = await api.get(f"{path}?at={at}")
    behind = state.Past(api.gateway.past.pool, Position())
    behind.position.set(at - 1)
    monkeypatch.setattr(api.gateway, "past", behind)
    assert await api.get(f"{path}?at={at}") == right
    assert (await api.get(f"{path}?at={datetime.now(UTC).isoformat()}".replace("+", "%2B")))["id"] == vm["id"]
    assert (await api.get("/v1/nodes/host-1?at=1", 404))["errors"][0]["field"] == "at"
    for late in (f"/v1/projects/default/vms?at={at}", f"/v1/operations?at={at}", f"/v1/tokens?at={at}"):
        answer = await api.http.get(late)
        assert (answer.status_code, answer.json()["code"]) == (503, "position_not_reached")
        assert "the past" in answer.json()["detail"]


async def test_an_earlier_project_belongs_to_others(there: World) -> None:
    """A role reaches back to the creation of the present project; auditors see all."""
    api, name = there.api, f"again-{uuid.uuid4().hex[:8]}"
    path = f"/v1/projects/{name}"
    await done(api, "POST", "/v1/projects", {"id": name, "name": "The first"})
    await done(
        api,
        "POST",
        "/v1/images",
        {"id": f"i-{name}", "name": "I", "source": str(api.side.home / "base.raw"), "project": name},
    )
    given = {"name": "theirs", "image": "base", **SPEC, "region": "elsewhere"}
    vm = (await made(api, f"{path}/vms", given))["vm"]["id"]
    first = await api.gateway.store.last_position()
    await api.call("DELETE", f"{path}/vms/{vm}")
    await eventually(lambda: gone(api, f"{path}/vms/{vm}"), "deleted")
    await done(api, "DELETE", f"/v1/images/i-{name}")
    await done(api, "DELETE", path)
    between = await api.gateway.store.last_position()
    await done(api, "POST", "/v1/projects", {"id": name, "name": "The second"})
    begun = await api.gateway.store.last_position()
    await done(api, "POST", f"{path}/bind", {"principal": "user:a-viewer", "role": "viewer"})
    own = (await made(api, f"{path}/vms", given))["vm"]["id"]
    last = await api.gateway.store.last_position()

    async def knows() -> bool:
        return (await there.call("viewer", "GET", f"{path}/vms/{own}")).status_code == 200

    await eventually(knows, "the role is known")
    nowhere = await there.call("viewer", "GET", f"/v1/projects/nowhere?at={first}")
    assert nowhere.status_code == 404
    for at in (1, first, between):
        for read in (path, f"{path}/vms", f"{path}/vms/{vm}", f"{path}/vms/{own}", f"{path}/usage"):
            hidden = await there.call("viewer", "GET", f"{read}?at={at}")
            said = hidden.json()
            assert (hidden.status_code, said["code"]) == (404, "project_not_found"), (read, at)
            assert said["detail"] == f"there was no project {name} at that time"
        listed = await there.all_of("viewer", f"/v1/projects?at={at}")
        assert name not in [each["id"] for each in listed]
        image = await there.call("viewer", "GET", f"/v1/images/i-{name}?at={at}")
        assert (image.status_code, image.json()["detail"]) == (404, f"there was no image i-{name} at that time")
        assert f"i-{name}" not in [each["id"] for each in await there.all_of("viewer", f"/v1/images?at={at}")]
        operations = await there.all_of("viewer", f"/v1/operations?project={name}&at={at}")
        assert operations == []
    theirs = await there.call("viewer", "GET", f"{path}/vms/{vm}?at={last}")
    assert (theirs.status_code, theirs.json()["code"]) == (404, "vm_not_found")
    mine = await there.call("viewer", "GET", f"{path}?at={begun}")
    assert mine.json()["name"] == "The second"
    assert [each["id"] for each in await there.all_of("viewer", f"{path}/vms?at={last}")] == [own]
    for who in ("auditor", "operator"):
        before = await there.call(who, "GET", f"{path}?at={first}")
        assert before.json()["name"] == "The first"
        assert [each["id"] for each in await there.all_of(who, f"{path}/vms?at={first}")] == [vm]
        assert f"i-{name}" in [each["id"] for each in await there.all_of(who, f"/v1/images?at={first}")]


async def test_tokens_belong_to_their_principals(there: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of others' tokens nobody learns more than of tokens that never were: not even the position of their events."""
    api = there.api
    own, other = [
        (await made(api, "/v1/tokens", {"name": "t", "principal": f"user:a-{who}"}))["token"]["id"]
        for who in ("member", "viewer")
    ]
    at = await api.gateway.store.last_position()
    await done(api, "DELETE", f"/v1/tokens/{own}")
    last = await api.gateway.store.last_position()
    await api.gateway.caught_up()
    for rows in (True, False):
        if not rows:
            monkeypatch.setattr("gateway.reads.past.ready", unavailable)
        found = await there.call("member", "GET", f"/v1/tokens/{own}?at={at}")
        assert (found.status_code, found.json()["last_used_at"]) == (200, None)
        gone = await there.call("member", "GET", f"/v1/tokens/{own}?at={last}")
        assert (gone.status_code, gone.json()["code"]) == (410, "token_revoked")
        hidden = [await there.call("member", "GET", f"/v1/tokens/{id_}?at={at}") for id_ in (other, str(uuid.uuid4()))]
        for answer, id_ in zip(hidden, (other, None), strict=True):
            assert (answer.status_code, answer.json()["errors"][0]["detail"]) == (404, "too early")
            if id_ is not None:
                assert answer.json()["detail"] == f"there was no token {id_} at that time"
        assert hidden[0].headers.get("nebula-position") == hidden[1].headers.get("nebula-position")
        assert (await there.call("auditor", "GET", f"/v1/tokens/{other}?at={at}")).status_code == 200
    monkeypatch.undo()
    assert [
        each["id"] for each in await there.all_of("member", f"/v1/tokens?at={at}") if each["id"] in (own, other)
    ] == [own]
    assert own not in [each["id"] for each in await there.all_of("member", f"/v1/tokens?at={last}")]
    assert {own, other} <= {each["id"] for each in await there.all_of("auditor", f"/v1/tokens?at={at}")}


async def test_the_same_from_the_log(there: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the past cannot be asked, one resource is read from the log, by the same rules."""
    api = there.api
    at = await api.gateway.store.last_position()
    reads = [
        *(f"/v1/projects/{project}" for project in (OWN, "foreign", "nowhere")),
        *(f"/v1/images/image-{owner}" for owner in (OWN, "foreign", "cloud", "missing")),
        *(f"/v1/flavors/flavor-{owner}" for owner in (OWN, "foreign", "cloud", "missing")),
        f"/v1/projects/{OWN}/vms/{there.ids[OWN]['vm']}",
        f"/v1/projects/{OWN}/vms/{there.ids['foreign']['vm']}",
    ]
    callers = ("viewer", "auditor")

    async def all_answers(moment: int) -> list[tuple[int, Any]]:
        found = []
        for who in callers:
            for read in reads:
                answer = await there.call(who, "GET", f"{read}?at={moment}")
                body = answer.json()
                found.append((answer.status_code, (body.get("code"), body.get("id"), body.get("version"))))
        return found

    by_rows = [await all_answers(moment) for moment in (5, at)]
    monkeypatch.setattr("gateway.reads.moments.PATIENCE", 0.01)
    monkeypatch.setattr(there.gateway, "past", state.Past(there.gateway.past.pool, Position()))
    monkeypatch.setattr("gateway.reads.past.ready", unavailable)
    assert [await all_answers(moment) for moment in (5, at)] == by_rows
    assert {status for status, _ in by_rows[1]} == {200, 404}


async def unavailable(*_: object) -> int:
    from projections.database import ReadModelsUnavailable

    raise ReadModelsUnavailable("the past was never built")
