"""An id of a project that was deleted and created again: a role in it sees nothing of the earlier project.

Neither now nor at an earlier moment, in no read and in no feed. Who sees the whole cloud sees both.
"""

import hashlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.gateway.matrix import OWN, World, made
from tests.gateway.platform import SPEC, frames
from tests.gateway.test_past import done, gone, there  # noqa: F401  (a fixture)
from tests.waiting import eventually


@dataclass
class Twice:
    """A project that was created twice: `vm`, `image` and `operation` are of the first, `own` of the second one.

    `begun`: the position of the event that created the second one.
    """

    there: World
    name: str
    vm: str
    image: str
    operation: str
    deleted: int
    begun: int
    own: str

    @property
    def path(self) -> str:
        return f"/v1/projects/{self.name}"

    async def get(self, who: str, path: str, status: int = 200) -> Any:
        answer = await self.there.call(who, "GET", path)
        assert answer.status_code == status, (path, answer.text)
        return answer.json()

    async def positions(self, who: str, query: str = "") -> list[int]:
        """The events of the project, or those that a query finds."""
        found = await self.there.all_of(who, f"/v1/events?{query or f'project={self.name}'}")
        return [each["position"] for each in found]


@pytest.fixture(scope="module")
async def twice(there: World) -> AsyncIterator[Twice]:  # noqa: F811
    api, name = there.api, f"twice-{uuid.uuid4().hex[:8]}"
    path = f"/v1/projects/{name}"
    await done(api, "POST", "/v1/projects", {"id": name, "name": "The first"})
    image = f"i-{name}"
    source = str(api.side.home / "base.raw")
    await done(api, "POST", "/v1/images", {"id": image, "name": "I", "source": source, "project": name})
    given = {"name": "theirs", "image": "base", **SPEC, "region": "elsewhere"}
    first = await made(api, f"{path}/vms", given)
    vm = first["vm"]["id"]
    await api.call("DELETE", f"{path}/vms/{vm}")
    await eventually(lambda: gone(api, f"{path}/vms/{vm}"), "deleted")
    await done(api, "DELETE", f"/v1/images/{image}")
    await done(api, "DELETE", path)
    deleted = await api.gateway.store.last_position()
    await done(api, "POST", "/v1/projects", {"id": name, "name": "The second"})
    created = (await api.get(f"/v1/events?project={name}&type=ProjectCreated"))["items"]
    begun = created[-1]["position"]
    assert len(created) == 2 and begun > deleted
    await done(api, "POST", f"{path}/bind", {"principal": "user:a-viewer", "role": "viewer"})
    own = (await made(api, f"{path}/vms", given))["vm"]["id"]

    async def knows() -> bool:
        return (await there.call("viewer", "GET", f"{path}/vms/{own}")).status_code == 200

    await eventually(knows, "the role is known")
    yield Twice(there, name, vm, image, first["operation"]["id"], deleted, begun, own)


async def test_a_search_finds_the_events_of_the_present_project(twice: Twice) -> None:
    whole = await twice.positions("auditor")
    assert min(whole) < twice.deleted and max(whole) > twice.begun
    mine = [position for position in whole if position >= twice.begun]
    assert await twice.positions("viewer") == mine
    assert await twice.positions("operator") == whole
    assert await twice.positions("viewer", f"project={twice.name}&order=desc") == mine[::-1]
    assert await twice.positions("viewer", f"project={twice.name}&from={twice.deleted - 2}") == mine
    for query in (f"vm={twice.vm}", f"id={twice.image}", f"operation={twice.operation}", f"id={twice.vm}"):
        assert await twice.positions("viewer", query) == []
        assert await twice.positions("auditor", query)
    assert min(await twice.positions("viewer", f"id={twice.name}&kind=project")) == twice.begun
    for at in (twice.deleted, twice.begun):
        found = await twice.positions("viewer", f"project={twice.name}&at={at}")
        assert found == [position for position in mine if position <= at]
    everything = await twice.there.all_of("viewer", "/v1/events")
    assert not [each for each in everything if twice.name in each["subject"] and each["position"] < twice.begun], (
        "without any filter"
    )
    for position in whole:
        status = 200 if position >= twice.begun else 404
        await twice.get("viewer", f"/v1/events/{position}", status)
        await twice.get("auditor", f"/v1/events/{position}")
    missing = (await twice.get("viewer", f"/v1/events/{whole[0]}", 404))["code"]
    assert missing == (await twice.get("viewer", "/v1/events/999999999", 404))["code"]


async def test_marks_count_the_events_of_the_present_project(twice: Twice) -> None:
    for who, first in (("viewer", twice.begun), ("auditor", 0)):
        events = [position for position in await twice.positions(who) if position >= first]
        for _ in range(2):  # counted, and then kept
            found = await twice.get(who, f"/v1/marks?project={twice.name}&to={max(events)}")
            assert sum(each["events"] for each in found["items"]) == len(events)
            assert found["items"][0]["first"] == events[0]
    theirs = await twice.get("viewer", f"/v1/marks?vm={twice.vm}")
    assert theirs["items"] == []


async def test_operations_of_the_earlier_project_are_not_found(twice: Twice) -> None:
    last = max(await twice.positions("auditor"))
    for at in ("", f"at={last}"):
        listed = await twice.there.all_of("viewer", f"/v1/operations?project={twice.name}&{at}")
        assert {each["resource"] for each in listed} == {twice.name, twice.own}
        assert min(each["position"] for each in listed) >= twice.begun
        hidden = await twice.get("viewer", f"/v1/operations/{twice.operation}?{at}", 404)
        assert hidden["code"] == "operation_not_found"
        ids = [each["id"] for each in await twice.there.all_of("auditor", f"/v1/operations?{at}")]
        assert twice.operation in ids
        await twice.get("auditor", f"/v1/operations/{twice.operation}?{at}")
        assert twice.operation not in [
            each["id"] for each in await twice.there.all_of("viewer", f"/v1/operations?{at}")
        ]


async def test_resources_of_the_earlier_project_are_not_found(twice: Twice) -> None:
    """As if they had never been: not `deleted`, with the position of that."""
    last = max(await twice.positions("auditor"))
    for path, code in (
        (f"{twice.path}/vms/{twice.vm}", "vm_not_found"),
        (f"{twice.path}/vms/{twice.vm}/verbs", "vm_not_found"),
        (f"{twice.path}/vms/{twice.vm}/feed", "vm_not_found"),
        (f"/v1/images/{twice.image}", "image_not_found"),
        (f"{twice.path}/vms/{twice.vm}?at={last}", "vm_not_found"),
        (f"/v1/images/{twice.image}?at={last}", "image_not_found"),
    ):
        assert (await twice.get("viewer", path, 404))["code"] == code, path
        never = path.replace(twice.vm, str(uuid.uuid4())).replace(twice.image, "i-never")
        assert (await twice.get("viewer", never, 404))["code"] == code, never
    await twice.get("auditor", f"/v1/images/{twice.image}", 410)
    await twice.get("auditor", f"{twice.path}/vms/{twice.vm}", 410)


@pytest.mark.parametrize("after", ["?after=0", "", "resumed"])
async def test_feeds_begin_with_the_present_project(twice: Twice, after: str) -> None:
    """From the beginning, or resumed at a position before it: `prev` still proves that nothing is missing."""
    mine = [position for position in await twice.positions("auditor") if position >= twice.begun]
    start = min(await twice.positions("auditor")) if after == "resumed" else 0
    headers = {"Authorization": f"Bearer {twice.there.tokens['viewer']}"}
    headers |= {"Last-Event-ID": str(start)} if after == "resumed" else {}
    query = "" if after == "resumed" else after
    found = await frames(twice.there.http, f"{twice.path}/feed{query}", len(mine), **headers)
    assert [int(each["sse_id"]) for each in found] == mine
    assert [each["prev"] for each in found] == [start, *mine[:-1]]
    store = twice.there.gateway.store
    log = await store.between(start, await store.last_position())
    begins = {OWN: 0, twice.name: twice.begun}
    expected = [each.position for each in log if each.position >= begins.get(each.subject.split(".")[2], 10**9)]
    whole = await frames(twice.there.http, f"/v1/feed{query}", len(expected), **headers)
    assert [int(each["sse_id"]) for each in whole] == expected
    assert [each["prev"] for each in whole] == [start, *(int(each["sse_id"]) for each in whole[:-1])]
    auditor = {**headers, "Authorization": f"Bearer {twice.there.tokens['auditor']}"}
    theirs = await frames(twice.there.http, f"{twice.path}/vms/{twice.vm}/feed", 1, **auditor)
    assert theirs[0]["position"] < twice.begun


async def test_a_role_that_outlives_the_project(there: World) -> None:  # noqa: F811
    """A role that is not of the log sees the deletion of its project, as long as nobody created it again."""
    api, name, token = there.api, f"out-{uuid.uuid4().hex[:8]}", f"t-{uuid.uuid4().hex}"
    path = f"/v1/projects/{name}"
    digest = hashlib.sha256(token.encode()).hexdigest()
    (api.side.home / "none").write_text(f"keeper {digest} viewer@{name}\n")
    headers = {"Authorization": f"Bearer {token}"}

    async def known() -> bool:
        return (await there.http.get("/v1/me", headers=headers)).status_code == 200

    await eventually(known, "the token is known")
    await done(api, "POST", "/v1/projects", {"id": name, "name": "The first"})
    await done(api, "DELETE", path)
    first = [each["position"] for each in (await api.get(f"/v1/events?project={name}"))["items"]]
    await there.gateway.caught_up()

    async def seen() -> list[int]:
        answer = await there.http.get(f"/v1/events?project={name}", headers=headers)
        assert answer.status_code == 200, answer.text
        return [each["position"] for each in answer.json()["items"]]

    assert await seen() == first
    feed = await frames(there.http, f"{path}/feed", len(first), **headers)
    assert [each["position"] for each in feed] == first
    await done(api, "POST", "/v1/projects", {"id": name, "name": "The second"})
    begun = max(each["position"] for each in (await api.get(f"/v1/events?project={name}"))["items"])

    async def hidden() -> bool:
        return await seen() == [begun]

    await eventually(hidden, "the gateway knows that the project is another one")
    assert [each["position"] for each in await frames(there.http, f"{path}/feed", 1, **headers)] == [begun]
    (api.side.home / "none").write_text("")
