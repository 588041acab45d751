"""What changed between two moments: in words, with who and why, for whom it may concern."""

import uuid
from typing import Any

import pytest

from domain.contract import Power
from gateway.words import fields
from tests.gateway.matrix import World, made
from tests.gateway.platform import SPEC, Platform
from tests.gateway.test_past import done, gone, phase_is, there  # noqa: F401  (a fixture)
from tests.waiting import eventually


async def items(api: Platform, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.get(f"/v1/diff?limit=500&{query}"))["items"]
    return found


async def test_a_life_in_words(api: Platform) -> None:
    name, vm = f"d-{uuid.uuid4().hex[:10]}", str(uuid.uuid4())
    of_vm = f"/v1/projects/{name}/vms/{vm}"
    start = await api.gateway.store.last_position()
    await done(api, "POST", "/v1/projects", {"id": name, "name": name})
    await done(api, "POST", "/v1/tags", {"id": f"t-{name}", "name": "T"})
    await api.call("POST", f"/v1/projects/{name}/vms", {"id": vm, "name": "web-1", "image": "base", **SPEC})
    wanted = await eventually(lambda: api.side.wanted(vm), "wanted document")
    await api.side.report(wanted, Power.ON, boots=1)
    await eventually(lambda: phase_is(api, of_vm, "running"), "running")
    running = await api.gateway.store.last_position()
    await api.call("PATCH", of_vm, {"labels": {"a": "b"}, "description": "x" * 300}, X_Request_Id="asked-1")
    await api.call("POST", f"{of_vm}/stop", {})
    await api.report(vm, Power.OFF, boots=1)
    await eventually(lambda: phase_is(api, of_vm, "stopped"), "stopped")
    await done(api, "DELETE", f"/v1/tags/t-{name}")
    stopped = await api.gateway.store.last_position()

    whole = await items(api, f"from={start}&to={stopped}")
    kinds = {(each["kind"], each["id"]): each for each in whole}
    assert kinds["project", name]["what"] == "created"
    assert (kinds["tag", f"t-{name}"]["what"], kinds["tag", f"t-{name}"]["name"]) == ("came_and_went", "T")
    assert (kinds["vm", vm]["what"], kinds["vm", vm]["project"]) == ("created", name)
    node = kinds["node", "host-1"]
    assert (node["what"], node["project"]) == ("changed", None)
    assert "vms" in [each["field"] for each in node["changes"]], "what was promised"

    [changed] = await items(api, f"from={running}&to={stopped}&project={name}")
    assert (changed["id"], changed["what"]) == (vm, "changed")
    said = {each["field"]: each for each in changed["changes"]}
    assert (said["phase"]["before"], said["phase"]["after"]) == ("running", "stopped")
    assert "phase changed from running to stopped" in changed["words"]
    assert said["labels"]["words"] == "label a is now b"
    assert len(said["description"]["words"]) < 250 and said["description"]["words"].endswith("…")
    assert not {"version", "position", "updated_at"} & said.keys()
    whys = {event["words"]: event["why"] for event in changed["events"]}
    assert whys["VM changed: description, labels"] == "local asked for it (request asked-1)"
    assert whys["VM stopped as requested"] == "node host-1 reported it"
    assert [event["position"] for event in changed["events"]] == sorted(
        each["position"] for each in (await api.get(f"/v1/events?vm={vm}&from={running + 1}&to={stopped}"))["items"]
    )

    pages, token = [], ""
    while True:
        page = await api.get(f"/v1/diff?from={start}&to={stopped}&limit=1{token}")
        pages += page["items"]
        if page["next_page_token"] is None:
            break
        token = f"&page_token={page['next_page_token']}"
    assert pages == whole
    assert [each["id"] for each in await items(api, f"from={start}&to={stopped}&kind=vm")] == [vm]
    assert [each["id"] for each in await items(api, f"from={start}&to={stopped}&id={vm.upper()}")] == [vm]
    assert await items(api, f"from={stopped}&to={stopped}") == []
    assert vm in [each["id"] for each in await items(api, f"from={start}")], "until now, with what was written just now"
    assert await items(api, f"from={stopped}&to={start}") == []
    for query, field in (("kind=nothing", "kind"), ("to=soon", "to"), ("from=999999999", "from")):
        refused = await api.get(f"/v1/diff?{query}", 400)
        assert refused["errors"][0]["field"] == field


async def test_many_events_are_counted(api: Platform) -> None:
    start = await api.gateway.store.last_position()
    name = f"many-{uuid.uuid4().hex[:8]}"
    await done(api, "POST", "/v1/tags", {"id": name, "name": "0"})
    for number in range(1, 24):
        await api.call("PATCH", f"/v1/tags/{name}", {"name": str(number)})
    [found] = await items(api, f"from={start}&id={name}")
    assert (found["name"], found["more_events"], len(found["events"])) == ("23", 4, 20)
    assert found["events"][0]["words"] == "Tag created"
    [one] = await items(api, f"from={found['events'][0]['position']}&to={found['events'][2]['position']}&id={name}")
    assert (one["words"], one["more_events"]) == (["name changed from 0 to 2"], 0)


async def test_a_role_sees_its_own_project_only(there: World) -> None:  # noqa: F811
    """Nothing of other projects, and nothing of an earlier project of the same id, not even as what was before."""
    api, name = there.api, f"again-{uuid.uuid4().hex[:8]}"
    path = f"/v1/projects/{name}"
    await done(api, "POST", "/v1/projects", {"id": name, "name": "Secret"})
    vm = (await made(api, f"{path}/vms", {"name": "theirs", "image": "base", **SPEC, "region": "elsewhere"}))["vm"][
        "id"
    ]
    first = await api.gateway.store.last_position()
    await api.call("DELETE", f"{path}/vms/{vm}")
    await eventually(lambda: gone(api, f"{path}/vms/{vm}"), "deleted")
    await done(api, "DELETE", path)
    await done(api, "POST", "/v1/projects", {"id": name, "name": "Second"})
    begun = await api.gateway.store.last_position()
    await done(api, "POST", f"{path}/bind", {"principal": "user:a-viewer", "role": "viewer"})

    async def knows() -> bool:
        return (await there.call("viewer", "GET", path)).status_code == 200

    await eventually(knows, "the role is known")
    for start in (0, first, begun - 1):
        found = await there.all_of("viewer", f"/v1/diff?from={start}")
        own = [each for each in found if each["project"] == name]
        assert [(each["kind"], each["what"], each["name"]) for each in own] == [("project", "created", "Second")]
        assert own[0]["events"][0]["position"] == begun
        assert "Secret" not in str(found) and "foreign" not in {each["project"] for each in found}
    assert "Secret" in str(await there.all_of("auditor", f"/v1/diff?from={first}"))
    assert await there.all_of("viewer", f"/v1/diff?from=0&to={first}&project={name}") == []
    assert (await there.call("none", "GET", "/v1/diff?from=0")).status_code == 403


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (["a"], ["a", "b"], "things: added b"),
        (["a", "b"], ["b"], "things: removed a"),
        (None, "n1", "things is now n1"),
        ("n1", None, "things is no longer n1"),
        (False, True, "things changed from no to yes"),
        ({"vcpus": 1}, {"vcpus": 2}, "things changed from vcpus=1 to vcpus=2"),
        ("a\x1b[31m\n", "b", None),
    ],
)
def test_a_field_in_words(before: object, after: object, words: str | None) -> None:
    said = fields.sentence("things", before, after)
    assert said.isprintable()
    assert words is None or said == words
