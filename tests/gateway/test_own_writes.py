"""Whoever writes through a gateway and then reads through it finds what was written, in every list."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import state
from gateway.writes import ANY, Writes
from projections.position import Position
from tests.gateway.platform import SPEC, VMS, Platform, served

TIMES = 60

Write = Callable[[Platform], Awaitable[tuple[str, dict[str, Any]]]]


async def sent(api: Platform, method: str, path: str, body: Any = None) -> dict[str, Any]:
    answer = await api.call(method, path, body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def tag(api: Platform) -> tuple[str, dict[str, Any]]:
    made = await sent(api, "POST", "/v1/tags", {"name": f"t-{uuid.uuid4().hex}"})
    return made["tag"]["id"], made


async def project(api: Platform) -> tuple[str, dict[str, Any]]:
    made = await sent(api, "POST", "/v1/projects", {"name": f"p-{uuid.uuid4().hex}"})
    return made["project"]["id"], made


async def image(api: Platform) -> tuple[str, dict[str, Any]]:
    body = {"id": f"i-{uuid.uuid4().hex}", "source": "/nowhere/image.raw"}
    made = await sent(api, "POST", "/v1/images", body)
    return body["id"], made


async def vm(api: Platform) -> tuple[str, dict[str, Any]]:
    made = await sent(api, "POST", VMS, {"name": "own", "image": "base", **SPEC})
    return made["vm"]["id"], made


async def last(api: Platform, path: str) -> list[Any]:
    """All items of a list, page after page."""
    items: list[Any] = []
    token = ""
    while True:
        page = await api.get(f"{path}{'&' if '?' in path else '?'}limit=500{token}")
        items += page["items"]
        if page["next_page_token"] is None:
            return items
        token = f"&page_token={page['next_page_token']}"


LISTS: list[tuple[Write, Callable[[str, dict[str, Any]], str], str]] = [
    (tag, lambda id_, made: "/v1/tags", "id"),
    (project, lambda id_, made: "/v1/projects", "id"),
    (image, lambda id_, made: "/v1/images", "id"),
    (vm, lambda id_, made: f"{VMS}?name=own", "id"),
    (tag, lambda id_, made: "/v1/operations?kind=tag", "resource"),
    (tag, lambda id_, made: f"/v1/events?kind=tag&after={made['position'] - 1}", "position"),
    (vm, lambda id_, made: f"/v1/events?type=VmRequested&after={made['position'] - 1}", "position"),
]
NAMES = ["tags", "projects", "images", "vms", "operations", "events of tags", "events of VMs"]


async def missing(api: Platform, case: tuple[Write, Callable[[str, dict[str, Any]], str], str]) -> int:
    """1 when a write is not in the list that is read next."""
    write, path, field = case
    id_, made = await write(api)
    sought = made["position"] if field == "position" else id_
    return 0 if sought in [item[field] for item in await last(api, path(id_, made))] else 1


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list waits for a few seconds and then says what is known: on a busy machine they may be too few."""
    monkeypatch.setattr(state, "OWN_WRITES", 60.0)


@pytest.mark.parametrize("case", LISTS, ids=NAMES)
async def test_every_write_is_in_the_list_that_is_read_next(api: Platform, case: Any) -> None:
    assert sum([await missing(api, case) for _ in range(TIMES // 2)]) == 0
    assert sum(await asyncio.gather(*(missing(api, case) for _ in range(TIMES // 2)))) == 0


async def test_changes_and_deletions_are_seen_as_well(api: Platform) -> None:
    for number in range(20):
        id_, _ = await tag(api)
        name = f"renamed {number}"
        await sent(api, "PATCH", f"/v1/tags/{id_}", {"name": name})
        assert (id_, name) in [(item["id"], item["name"]) for item in await last(api, "/v1/tags")]
        await sent(api, "DELETE", f"/v1/tags/{id_}")
        assert id_ not in [item["id"] for item in await last(api, "/v1/tags")]


async def test_nodes(api: Platform) -> None:
    for verb, cordoned in (("cordon", True), ("uncordon", False)) * (TIMES // 2):
        await sent(api, "POST", f"/v1/nodes/host-1/{verb}")
        assert [node["cordoned"] for node in await last(api, "/v1/nodes")] == [cordoned]


async def test_a_lower_min_position_takes_nothing_back(api: Platform) -> None:
    for _ in range(10):
        id_, _ = await tag(api)
        assert id_ in [item["id"] for item in await last(api, "/v1/tags?min_position=1")]


@pytest.fixture
async def two(api: Platform, tmp_path: Path) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    file = tmp_path / "tokens"
    file.write_text("".join(f"{name} {hashlib.sha256(name.encode()).hexdigest()}\n" for name in ("alice", "bob")))
    async with (
        served(api.side, api.dsn, tokens_file=file) as (gateway, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        yield gateway, http


async def test_nobody_waits_for_what_others_wrote(two: tuple[Any, httpx.AsyncClient]) -> None:
    gateway, http = two
    alice, bob = ({"Authorization": f"Bearer {name}"} for name in ("alice", "bob"))
    answer = await http.post("/v1/tags", json={"name": f"t-{uuid.uuid4().hex}"}, headers=alice)
    assert answer.status_code == 202
    reached: list[int] = []

    class Behind(Position):
        async def reach(self, position: int, seconds: float) -> bool:
            reached.append(position)
            return True

    gateway.position = Behind()
    await http.get("/v1/tags", headers=bob)
    assert reached == []
    await http.get("/v1/tags", headers=alice)
    assert reached == [answer.json()["position"]]


async def test_a_list_without_the_callers_own_write_is_not_shown(two: tuple[Any, httpx.AsyncClient]) -> None:
    """It says that it cannot be, as where a `min_position` is not reached; others are shown what there is."""
    gateway, http = two
    alice, bob = ({"Authorization": f"Bearer {name}"} for name in ("alice", "bob"))
    made = (await http.post("/v1/tags", json={"name": f"t-{uuid.uuid4().hex}"}, headers=alice)).json()
    awaited: list[float] = []

    class Stuck(Position):
        async def reach(self, position: int, seconds: float) -> bool:
            awaited.append(seconds)
            return False

    gateway.position = Stuck()
    mine, operation = f"/v1/tags/{made['tag']['id']}", f"/v1/operations/{made['operation']['id']}"
    for path in ("/v1/tags", "/v1/operations", "/v1/events", mine, operation):
        answer = await http.get(path, headers=alice)
        assert (answer.status_code, answer.json()["code"]) == (503, "position_not_reached"), path
        assert str(made["position"]) in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0
    assert set(awaited) == {state.OWN_WRITES}
    for path in ("/v1/tags", "/v1/operations", "/v1/events", "/v1/projects"):
        assert (await http.get(path, headers=bob)).status_code == 200, path
    assert (await http.get("/v1/projects", headers=alice)).status_code == 200, "nothing of that kind was written"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.writes.MOST", 10)
    writes = Writes()
    for number in range(1, 101):
        writes.note(f"caller-{number}", "tag", number, f"id-{number}")
    assert len(writes._named) == len(writes._callers) == 10
    assert (writes.by("caller-100", "tag"), writes.by("caller-100", ANY)) == (100, 100)
    assert writes.by("caller-1", "tag") == 95  # forgotten: it waits for all who were
    assert writes.by("caller-1", "vm") == 0
    assert (writes.named("id-100", "id-1"), writes.named("id-1"), writes.newest) == (100, 0, 100)
    writes.note("caller-100", "tag", 50)
    assert (writes.by("caller-100", "tag"), writes.newest) == (100, 100)
