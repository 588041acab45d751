"""What a tenant learns of others: nothing from lists, feeds and searches, and nothing by guessing ids."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.access import ANYWHERE, EVENT_READ, KNOWN, OPEN, PLATFORM, SELF
from eventstore.log.store import EventStore
from gateway.commands.actions import Action
from gateway.guard import READABLE
from gateway.table.reads import READS
from projections import database
from runtime.local.servers import Postgres
from tests.gateway.matrix import CALLERS, CALLS, NOWHERE, OTHER, OWN, World, together, world
from tests.gateway.platform import SPEC, frames, platform

TENANTS = [who for who, access in CALLERS.items() if access.projects(EVENT_READ) is not None]
MISSING = {
    "image": "image-missing",  # as long as the id of the one that exists
    "flavor": "flavor-missing",
    "node": "host-9",
    "user": "nobody-s",
    "service_account": "nothing-s",
    "token": "abcdefabcdef",
    "source": "log",
    "key": "p-9",
    "event": "999999",
}
LISTS = [read for read in READS if read.listed and "{" not in read.path and read.permission != SELF]


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[World]:
    home: Path = tmp_path_factory.mktemp("isolation")
    async with platform(home, postgres) as api, world(api) as made:
        yield made


def owner_of(path: str, item: dict[str, Any]) -> str | None:
    """The project that an item of a list belongs to, by the ids of this world."""
    match path:
        case "/v1/projects":
            return str(item["id"])
        case "/v1/images" | "/v1/flavors" | "/v1/diff" | "/v1/vms":
            project = item["project"]
            return str(project) if project else None
        case "/v1/operations":
            return by_id(item["project"], item["resource"])
        case "/v1/events":
            token, _, id_ = item["subject"].split(".")[2:5]
            return by_id(token, id_)
        case _:
            return None


def by_id(project: str, id_: str) -> str | None:
    if project != "system":
        return project
    return next((place for place in (OWN, OTHER) if id_ in (f"image-{place}", f"flavor-{place}")), None)


@pytest.mark.parametrize("read", LISTS, ids=lambda read: read.path)
async def test_a_list_has_what_its_reader_may_see(there: World, read: Any) -> None:
    if read.path in ("/v1/refusals", "/v1/parked"):
        return  # for operators and auditors only
    everything = await there.all_of("operator", read.path)
    for who, access in CALLERS.items():
        if (await there.call(who, "GET", read.path)).status_code == 403:
            continue
        seen = [item for item in everything if access.may(read.permission, owner_of(read.path, item))]
        assert await there.all_of(who, read.path) == seen, who
        if who in TENANTS and read.path not in ("/v1/tags",):
            assert 0 < len(seen) < len(everything), who


@pytest.mark.parametrize("who", ["viewer", "auditor"])
async def test_the_feed_of_everything_has_what_its_reader_may_see(there: World, who: str) -> None:
    """With the previous position of this very feed, so that its reader can prove that it missed nothing."""
    right = [
        event["position"]
        for event in await there.all_of("operator", "/v1/events")
        if who == "auditor" or event["subject"].startswith(f"nebula.events.{OWN}.")
    ]
    found = await frames(there.http, "/v1/feed?after=0", len(right), Authorization=f"Bearer {there.tokens[who]}")
    assert [item["position"] for item in found] == right
    assert [item["prev"] for item in found] == [0, *right[:-1]]
    again = await frames(there.http, f"/v1/feed?after={right[1]}", 1, Authorization=f"Bearer {there.tokens[who]}")
    assert (again[0]["position"], again[0]["prev"]) == (right[2], right[1])


async def test_a_search_that_waits_is_not_ended_by_events_of_others(there: World) -> None:
    end = (await there.call("operator", "GET", "/v1/events?limit=1")).json()["position"]
    waiting = asyncio.create_task(there.call("member", "GET", f"/v1/events?after={end}&type=VmRequested&wait=30s"))
    given = {"name": "v", "image": "base", **SPEC, "region": "elsewhere"}
    for place in (OTHER, OWN):
        made = await there.call("operator", "POST", f"/v1/projects/{place}/vms", given)
        assert made.status_code == 202, made.text
        await asyncio.sleep(0.3)
    assert [event["subject"].split(".")[2] for event in (await waiting).json()["items"]] == [OWN]


# ── guessing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def guesses(world: World) -> Iterator[tuple[str, str, dict[str, str], dict[str, str]]]:
    """Each call with an id: method, path, the ids of something of another project, and ids of nothing."""
    ids, guessed = world.ids, str(uuid.uuid4())
    missing = {**MISSING, "operation": guessed}
    there = {**ids["cloud"], **ids[OTHER], "token": world.tokens["operator"].split("_")[1]}
    for call in CALLS:
        names = [part[1:-1] for part in call.path.split("/") if part.startswith("{")]
        if "project" in names:
            yield call.method, call.path, {"vm": "", **ids[OTHER]}, {"vm": guessed, "project": NOWHERE}
            if "vm" in names:
                yield call.method, call.path, {**ids[OTHER], "project": OWN}, {"vm": guessed, "project": OWN}
        elif names and names[0] in there and names[0] != "tag":  # all see all tags
            yield call.method, call.path, there, missing
    for path, name in (
        ("/v1/events?vm={}", "vm"),
        ("/v1/events?operation={}", "operation"),
        ("/v1/events?id={}", "vm"),
        ("/v1/events?order=desc&project={}", "project"),
        ("/v1/marks?vm={}", "vm"),
        ("/v1/marks?project={}", "project"),
        ("/v1/events?project={}", "project"),
        ("/v1/operations?vm={}", "vm"),
        ("/v1/operations?project={}", "project"),
        ("/v1/images?project={}", "project"),
        ("/v1/flavors?project={}", "project"),
        ("/v1/operations/{}?wait=2s", "operation"),
    ):
        yield "GET", path.replace("{}", f"{{{name}}}"), there, {**missing, "vm": guessed, "project": NOWHERE}


def told(answer: httpx.Response, ids: dict[str, str]) -> tuple[object, ...]:
    """All that an answer tells, but for the ids of the call and what differs between any two calls."""
    apart = {"x-request-id", "date", "nebula-position"}
    headers = [(name, value) for name, value in answer.headers.raw if name.decode().lower() not in apart]
    text = answer.text.replace(answer.headers["x-request-id"], "<request>")
    for name, value in ids.items():
        text = text.replace(value, f"<{name}>") if value else text
    if "event" in ids:  # (positions have different lengths)
        headers = [(name, b"") if name.lower() == b"content-length" else (name, value) for name, value in headers]
    return answer.status_code, headers, text


@pytest.mark.parametrize("who", TENANTS)
async def test_what_is_of_others_is_told_as_what_does_not_exist(there: World, who: str) -> None:
    async def one(method: str, path: str, ids: dict[str, str]) -> tuple[object, ...]:
        body: object = {} if method in ("POST", "PATCH") else None
        named = {name: id_ for name, id_ in ids.items() if name != "event" or "{event}" in path}
        return told(await there.call(who, method, path.format_map(ids), body), named)

    tried = list(guesses(there))
    assert len(tried) > 60
    theirs = await together([one(method, path, ids) for method, path, ids, _ in tried])
    nobodys = await together([one(method, path, ids) for method, path, _, ids in tried])
    for (method, path, _, _), of_others, of_nobody in zip(tried, theirs, nobodys, strict=True):
        assert of_others == of_nobody, (method, path)


@pytest.mark.parametrize("who", ["viewer", "admin"])
async def test_guessing_costs_the_same(there: World, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same queries and the same looks at the log, so that times tell no more than answers do."""
    steps: Counter[str] = Counter()
    rows, last, history = database._rows, EventStore.last_position, EventStore.history

    def counted(name: str, real: Any) -> Any:
        async def counting(*args: Any, **more: Any) -> Any:
            steps[name] += 1
            return await real(*args, **more)

        return counting

    monkeypatch.setattr(database, "_rows", counted("query", rows))
    for name, real in (("last_position", last), ("history", history)):
        monkeypatch.setattr(EventStore, name, counted(name, real))
    for method, path, theirs, nobodys in guesses(there):
        cost = []
        for ids in (theirs, nobodys):
            steps.clear()
            await there.call(who, method, path.format_map(ids), {} if method in ("POST", "PATCH") else None)
            cost.append(dict(steps))
        assert cost[0] == cost[1], (method, path)


@pytest.mark.parametrize(("field", "id_"), [("image", f"image-{OTHER}"), ("flavor", f"flavor-{OTHER}")])
async def test_a_vm_cannot_be_made_of_what_others_have(there: World, field: str, id_: str) -> None:
    """And the refusal does not tell that it exists."""
    answers = []
    for name in (id_, MISSING[field]):
        given = {"name": "v", "image": "base", **({} if field == "flavor" else SPEC), field: name}
        answers.append(told(await there.call("member", "POST", f"/v1/projects/{OWN}/vms", given), {"id": name}))
    assert answers[0] == answers[1]
    assert answers[0][0] == 422


async def test_a_ticket_opens_what_its_owner_may_see(there: World) -> None:
    answers = []
    for project in (OTHER, NOWHERE, OWN):
        path = f"/v1/projects/{project}/feed"
        ticket = (await there.call("viewer", "POST", "/v1/tickets", {"path": path})).json()["ticket"]
        async with there.http.stream("GET", f"{path}?ticket={ticket}") as answer:
            if answer.status_code != 200:
                await answer.aread()
                answers.append(told(answer, {"project": project}))
            else:
                assert project == OWN
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def test_a_key_of_another_caller_shows_nothing(there: World) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    given = {"name": "v", "image": "base", **SPEC, "region": "elsewhere"}
    path = f"/v1/projects/{OWN}/vms"
    made = [await there.call(who, "POST", path, given, **key) for who in ("member", "admin", "member")]
    operations = [answer.json()["operation"]["id"] for answer in made]
    assert operations[0] == operations[2] != operations[1]
    assert [answer.headers.get("idempotent-replayed") for answer in made] == [None, None, "true"]
    refused = await there.call("viewer", "POST", path, given, **key)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert refused.json()["detail"] == f"this needs the role member in project {OWN}"


async def test_who_one_is(there: World) -> None:
    said = (await there.call("member", "GET", "/v1/me")).json()
    assert (said["principal"], said["roles"]) == ("user:a-member", [{"role": "member", "project": OWN}])
    assert (await there.call("none", "GET", "/v1/me")).json()["roles"] == []


@pytest.mark.parametrize("who", CALLERS)
async def test_what_one_may_do(there: World, who: str) -> None:
    """A call is allowed in a project if its permission is said of the project, or of the whole cloud."""
    said = (await there.call(who, "GET", "/v1/me")).json()["permissions"]
    assert said[0]["project"] is None
    assert [each["project"] for each in said[1:]] == [OWN] * (OWN in str(CALLERS[who].grants))
    known = {each["project"]: {*each["permissions"]} for each in said}
    for permission in KNOWN - {OPEN, PLATFORM}:
        for project in (OWN, OTHER):
            allowed = permission in known[None] | known.get(project, set())
            # what belongs to no project everybody may read who has any role; what is of this project is hidden
            public = permission in ANYWHERE and CALLERS[who].may(permission)
            assert allowed == (CALLERS[who].may(permission, project) or public), (permission, project)
        assert (permission in known[None]) == CALLERS[who].may(permission), permission


def test_every_id_in_a_path_says_who_may_see_it() -> None:
    named = {call.path.split("{", 1)[1].split("}", 1)[0] for call in CALLS if "{" in call.path}
    assert named <= {*READABLE}
    assert any(isinstance(call, Action) for call in CALLS)
